//! What has passed is what was written.
