//! How fast and how often something may happen: limits that all engines of a process share.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use core::net::IpAddr;
use core::num::NonZeroU32;
use core::sync::atomic::{AtomicU64, Ordering};

use crate::balance::hash_source;
use crate::time::{Duration, Timestamp};

/// A token bucket, in the form of GCRA (the generic cell rate algorithm, ITU-T I.371): all it keeps is the time at
/// which it would be full again. A clone is the same bucket, so that a rate holds for the process and not for each
/// worker; it is one atomic word, touched once in a session's life.
#[derive(Clone, Debug)]
pub struct Bucket {
    /// When the token after those that were taken is due, in nanoseconds.
    next: Arc<AtomicU64>,
    /// Nanoseconds from one token to the next.
    every: u64,
    /// How far ahead of their time tokens may be taken, in nanoseconds.
    ahead: u64,
}

impl Bucket {
    /// A full bucket: `rate` tokens a second, of which `burst` can be saved up.
    pub fn new(rate: NonZeroU32, burst: NonZeroU32) -> Self {
        let every = 1_000_000_000 / u64::from(rate.get());
        Self {
            next: Arc::default(),
            every,
            ahead: every * (u64::from(burst.get()) - 1),
        }
    }

    /// Takes a token.
    ///
    /// # Errors
    /// There is none: when to ask again. Nothing was taken, and another may be faster then.
    pub fn take(&self, now: Timestamp) -> Result<(), Timestamp> {
        let now = now.as_nanos();
        let taken = self
            .next
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |next| {
                (next <= now.saturating_add(self.ahead)).then(|| next.max(now) + self.every)
            });
        taken
            .map(drop)
            .map_err(|next| Timestamp::from_nanos(next - self.ahead))
    }

    /// When there is a token: `now` at the earliest. Nothing is taken.
    pub fn due(&self, now: Timestamp) -> Timestamp {
        let next = self.next.load(Ordering::Relaxed);
        Timestamp::from_nanos(next.saturating_sub(self.ahead).max(now.as_nanos()))
    }

    /// Takes a token, of the future if there is none now. Returns when it is due: `now` at the earliest.
    pub fn reserve(&self, now: Timestamp) -> Timestamp {
        let nanos = now.as_nanos();
        let reserve = |next: u64| Some(next.max(nanos).saturating_add(self.every));
        let taken = self
            .next
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, reserve);
        let next = taken.unwrap_or_else(|next| next);
        Timestamp::from_nanos(next.saturating_sub(self.ahead).max(nanos))
    }

    /// Whether it is the same bucket, not only one like it.
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.next, &other.next)
    }

    /// Whether it is one of that rate and burst.
    pub fn has(&self, rate: NonZeroU32, burst: NonZeroU32) -> bool {
        let other = Self::new(rate, burst);
        (self.every, self.ahead) == (other.every, other.ahead)
    }

    /// From one token to the next.
    pub const fn interval(&self) -> Duration {
        Duration::from_nanos(self.every)
    }
}

/// Live sessions by client address, for [`Listener::per_source`](crate::config::Listener::per_source).
///
/// A clone is the same count, so that the limit holds for the process. It is looked at twice in a session's life, and
/// only where the limit is configured; IPv4-mapped IPv6 addresses count as the IPv4 address they are.
#[derive(Clone, Debug)]
pub struct Sources {
    shards: Arc<[Shard; SHARDS]>,
    limit: u32,
}

/// Enough that two workers seldom meet.
const SHARDS: usize = 64;
type Shard = spin::Mutex<BTreeMap<IpAddr, u32>>;

impl Sources {
    /// No session yet, and at most `limit` of each address.
    pub fn new(limit: NonZeroU32) -> Self {
        let shards = Arc::new(core::array::from_fn(|_| Shard::default()));
        let limit = limit.get();
        Self { shards, limit }
    }

    /// The same sessions under another limit: those that are above it stay.
    #[must_use]
    pub fn with_limit(&self, limit: NonZeroU32) -> Self {
        let shards = Arc::clone(&self.shards);
        let limit = limit.get();
        Self { shards, limit }
    }

    /// One more of `source`; `false`, and nothing counted, if it has as many as it may.
    pub fn enter(&self, source: IpAddr) -> bool {
        let source = source.to_canonical();
        let mut shard = self.shard(source).lock();
        let count = shard.entry(source).or_default();
        if *count >= self.limit {
            return false;
        }
        *count += 1;
        true
    }

    /// One less of `source`, which has entered.
    pub fn leave(&self, source: IpAddr) {
        let source = source.to_canonical();
        let mut shard = self.shard(source).lock();
        let count = shard.get_mut(&source);
        debug_assert!(count.is_some(), "whoever leaves has entered");
        if let Some(count) = count {
            *count -= 1;
            if *count == 0 {
                shard.remove(&source);
            }
        }
    }

    /// Addresses that have a session.
    pub fn live(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().len()).sum()
    }

    fn shard(&self, source: IpAddr) -> &Shard {
        &self.shards[hash_source(source) as usize % SHARDS]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bucket(rate: u32, burst: u32) -> Bucket {
        Bucket::new(
            NonZeroU32::new(rate).unwrap(),
            NonZeroU32::new(burst).unwrap(),
        )
    }

    #[test]
    fn a_burst_then_the_rate() {
        let now = Timestamp::from_millis(7);
        let bucket = bucket(10, 3);
        for _ in 0..3 {
            assert_eq!(bucket.take(now), Ok(()));
        }
        let next = now + Duration::from_millis(100);
        assert_eq!(
            bucket.clone().take(now),
            Err(next),
            "a clone is the same bucket"
        );
        assert_eq!(
            bucket.take(Timestamp::from_nanos(next.as_nanos() - 1)),
            Err(next)
        );
        assert_eq!(bucket.take(next), Ok(()));
        // A long rest saves up no more than the burst.
        let later = now + Duration::from_secs(3600);
        let granted = (0..10).filter(|_| bucket.take(later).is_ok()).count();
        assert_eq!(granted, 3);
    }

    #[test]
    fn turns_that_are_reserved_are_spread_at_the_rate() {
        let now = Timestamp::from_millis(7);
        let bucket = bucket(1000, 2);
        let turns: [_; 5] = core::array::from_fn(|_| bucket.reserve(now).since(now).as_millis());
        assert_eq!(turns, [0, 0, 1, 2, 3]);
        assert!(bucket.take(now).is_err(), "they are taken");
    }

    #[test]
    fn sources_are_counted_up_to_the_limit_and_forgotten() {
        let sources = Sources::new(NonZeroU32::new(2).unwrap());
        let one: IpAddr = "10.0.0.1".parse().unwrap();
        let mapped: IpAddr = "::ffff:10.0.0.1".parse().unwrap();
        let other: IpAddr = "::1".parse().unwrap();
        assert!(sources.enter(one) && sources.enter(mapped) && sources.enter(other));
        assert!(!sources.clone().enter(one));
        assert_eq!(sources.live(), 2);
        sources.leave(one);
        assert!(sources.enter(mapped));
        let more = sources.with_limit(NonZeroU32::new(3).unwrap());
        assert!(more.enter(one) && !more.enter(one));
        for _ in 0..3 {
            sources.leave(one);
        }
        sources.leave(other);
        assert_eq!(sources.live(), 0);
    }
}
