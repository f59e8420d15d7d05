//! What the workers were given.

use std::sync::Arc;

use tlb_engine::roster::Roster;

use crate::names::FleetNames;

/// What the workers were given last, and what they were given before and may still hold.
///
/// Whoever lets go of a roster last frees it, which takes time in proportion to its backends: that is to be the control
/// thread, not a worker in between two messages.
#[derive(Debug)]
pub(crate) struct Published {
    roster: Arc<Roster>,
    names: Arc<FleetNames>,
    old_rosters: Vec<Arc<Roster>>,
    old_names: Vec<Arc<FleetNames>>,
}

impl Published {
    /// That roster, and what goes with it.
    pub(crate) fn new(roster: &Arc<Roster>) -> Self {
        let mut names = FleetNames::default();
        names.learn(roster);
        Self {
            roster: Arc::clone(roster),
            names: Arc::new(names),
            old_rosters: Vec::new(),
            old_names: Vec::new(),
        }
    }

    /// Another roster takes the place of the one there is.
    pub(crate) fn replace(&mut self, roster: Arc<Roster>) {
        if !self.names.fit(&roster) {
            let mut names = FleetNames::clone(&self.names);
            names.learn(&roster);
            let old = std::mem::replace(&mut self.names, Arc::new(names));
            self.old_names.push(old);
        }
        let old = std::mem::replace(&mut self.roster, roster);
        self.old_rosters.push(old);
    }

    pub(crate) fn roster(&self) -> &Arc<Roster> {
        &self.roster
    }

    pub(crate) fn names(&self) -> &Arc<FleetNames> {
        &self.names
    }

    /// Frees what no worker holds any more.
    pub(crate) fn free_old(&mut self) {
        self.old_rosters.retain(|it| Arc::strong_count(it) > 1);
        self.old_names.retain(|it| Arc::strong_count(it) > 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_worker_still_holds_is_freed_once_it_lets_go() {
        let rosters = [1, 2].map(|epoch| {
            Arc::new(Roster {
                epoch,
                pools: Vec::new(),
            })
        });
        let [first, second] = rosters;
        let weak = Arc::downgrade(&first);
        let mut published = Published::new(&first);
        published.replace(second);
        published.free_old();
        drop(first);
        assert!(weak.upgrade().is_some(), "a worker was not the last");
        published.free_old();
        assert!(weak.upgrade().is_none());
        assert_eq!(published.roster().epoch, 2);
    }
}
