//! Whether the watch of a kind of object goes on.
//!
//! Enters: what the watch reports. Leaves: what became of objects, to `agent`; a line in the log when the
//! watch breaks off, and when it goes on.

use kube::runtime::watcher::Event;

use crate::cluster::Outage;
use crate::watch::WatchEvent;

/// One kind of object that is watched: whether the watch goes on.
pub(crate) struct Watching {
    pub(crate) is_up: bool,
    outage: Outage,
}

impl Watching {
    pub(crate) fn new(what: &'static str) -> Self {
        Self { is_up: false, outage: Outage::new(what) }
    }

    /// What became of an object, if the event is of one.
    pub(crate) fn note<K>(&mut self, event: WatchEvent<K>) -> Option<Event<K>> {
        match event {
            WatchEvent::Lost(why) => {
                self.is_up = false;
                self.outage.begin(&why);
                None
            }
            WatchEvent::Back => {
                self.is_up = true;
                self.outage.over();
                None
            }
            WatchEvent::Event(event) => {
                // The begin of a list comes before the server has answered.
                if !matches!(*event, Event::Init) {
                    self.is_up = true;
                    self.outage.over();
                }
                Some(*event)
            }
        }
    }

    /// The kind of object is not there, and that is no outage.
    pub(crate) fn absent(&mut self) {
        self.is_up = true;
        self.outage.over();
    }
}
