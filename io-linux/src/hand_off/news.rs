//! What the program in the kernel has to say.

use aya::maps::{MapData, RingBuf};
use tokio::io::unix::AsyncFd;
use tracing::error;

use super::program::Ring;
use crate::sys;

/// Slots of sessions that are to be looked at.
pub(crate) struct News(Option<AsyncFd<RingBuf<MapData>>>);

impl News {
    /// Out of that ring; none ever, without one. Called within a runtime of tokio.
    pub(crate) fn of(ring: Option<Ring>) -> Self {
        let ring = ring.and_then(|Ring(ring)| match sys::watch(ring) {
            Ok(ring) => Some(ring),
            Err(error) => {
                // Each session is asked about from time to time, too.
                error!(%error, "nothing is heard of sessions that were handed off");
                None
            }
        });
        Self(ring)
    }

    /// The next one. Nothing is lost if it is not awaited to the end.
    pub(crate) async fn next(&mut self) -> u32 {
        let Some(ring) = &mut self.0 else {
            return std::future::pending().await;
        };
        loop {
            // A descriptor that the reactor has lost brings nothing more.
            let Ok(mut ready) = ring.readable_mut().await else {
                return std::future::pending().await;
            };
            let item = ready.get_inner_mut().next();
            if let Some(slot) = item.and_then(|item| item.first_chunk().copied()) {
                return u32::from_ne_bytes(slot);
            }
            ready.clear_ready();
        }
    }
}
