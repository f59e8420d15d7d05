//! A user's own unpacks, by name.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use tlb_engine::unpack::{Reject, Spec, Status, Unpack};

/// The unpacks that a program registers before it starts the server: what a listener's `unpack` may
/// name besides the file's own `[unpack.NAME]`.
///
/// A panic in one of them ends the one session, as [`Reject::Panicked`], wherever panics unwind
/// (they do unless the program was built with `panic = "abort"`). The program's panic hook still
/// sees it, and by default prints it.
///
/// ```
/// use tlb::registry::UnpackRegistry;
/// use tlb_engine::unpack::{Status, Target, Unpack};
///
/// /// The first byte is the key.
/// #[derive(Debug)]
/// struct FirstByte;
///
/// impl Unpack for FirstByte {
///     fn unpack(&self, prefix: &[u8], _scanned: usize, _eof: bool) -> Status {
///         if prefix.is_empty() {
///             return Status::Partial { at_least: 1, scanned: 0 };
///         }
///         Status::Complete { frame: 0..1, target: Target::Key(0..1) }
///     }
/// }
///
/// let mut registry = UnpackRegistry::new();
/// registry.register("first-byte", FirstByte)?;
/// assert!(registry.get("first-byte").is_some());
/// assert!(registry.register("first-byte", FirstByte).is_err());
/// # Ok::<(), tlb::registry::DuplicateUnpack>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct UnpackRegistry {
    by_name: BTreeMap<String, Arc<dyn Unpack>>,
}

impl UnpackRegistry {
    /// One without any.
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes `unpack` known as `name`.
    ///
    /// # Errors
    /// The name is taken; the earlier one stays.
    pub fn register(
        &mut self,
        name: impl Into<String>,
        unpack: impl Unpack + 'static,
    ) -> Result<(), DuplicateUnpack> {
        let name = name.into();
        if self.by_name.contains_key(&name) {
            return Err(DuplicateUnpack { name });
        }
        self.by_name.insert(name, Arc::new(Guarded(unpack)));
        Ok(())
    }

    /// The one of that name.
    pub fn get(&self, name: &str) -> Option<&Arc<dyn Unpack>> {
        self.by_name.get(name)
    }

    /// The names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.by_name.keys().map(String::as_str)
    }
}

/// Two unpacks of one name: the program that registers them is at fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DuplicateUnpack {
    name: String,
}

impl fmt::Display for DuplicateUnpack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an unpack named `{}` is registered already", self.name)
    }
}

impl Error for DuplicateUnpack {}

/// An unpack whose panics are rejects.
#[derive(Debug)]
struct Guarded<U>(U);

impl<U: Unpack> Unpack for Guarded<U> {
    fn unpack(&self, prefix: &[u8], scanned: usize, eof: bool) -> Status {
        // `unpack` takes `&self` and has no state that the engine knows of. What a panic leaves
        // behind in a user's own interior mutability is the user's to keep consistent, as with any
        // lock.
        catch_unwind(AssertUnwindSafe(|| self.0.unpack(prefix, scanned, eof)))
            .unwrap_or(Status::Invalid(Reject::Panicked))
    }

    fn spec(&self) -> Option<Spec> {
        self.0.spec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tlb_engine::unpack::Target;

    /// Indexes beyond the prefix, as a careless unpack would.
    #[derive(Debug)]
    struct Careless;

    impl Unpack for Careless {
        fn unpack(&self, prefix: &[u8], _scanned: usize, _eof: bool) -> Status {
            let key = usize::from(prefix[3]);
            Status::Complete {
                frame: 0..4,
                target: Target::Key(0..key),
            }
        }
    }

    #[test]
    fn a_panic_is_a_reject_and_the_next_call_works() {
        let mut registry = UnpackRegistry::new();
        registry.register("careless", Careless).expect("a new name");
        let unpack = registry.get("careless").expect("just registered");
        assert_eq!(
            unpack.unpack(b"abc", 0, false),
            Status::Invalid(Reject::Panicked)
        );
        assert_eq!(
            unpack.unpack(b"abc\x02", 0, false),
            Status::Complete {
                frame: 0..4,
                target: Target::Key(0..2)
            }
        );
    }

    #[test]
    fn names_are_unique_and_sorted() {
        let mut registry = UnpackRegistry::new();
        for name in ["b", "a"] {
            registry.register(name, Careless).expect("a new name");
        }
        let error = registry.register("a", Careless).expect_err("taken");
        assert_eq!(
            error.to_string(),
            "an unpack named `a` is registered already"
        );
        assert!(registry.names().eq(["a", "b"]));
        assert!(registry.get("c").is_none());
    }
}
