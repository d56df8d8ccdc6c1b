//! What a failed ADD takes back.
//!
//! Each step of ADD, once done, pushes its reversal. Dropped on any way out, panics included, the
//! stack runs them in reverse; `disarm` keeps everything.

use std::rc::Rc;

use crate::netns::NetNs;

/// Reversals of what was done so far.
#[derive(Default)]
pub(crate) struct Undo<'a> {
    steps: Vec<(&'static str, Step<'a>)>,
    /// Keeps other ADDs out until the last step was run: the steps know the pod by its name alone.
    _locked: Option<Rc<NetNs>>,
}

type Step<'a> = Box<dyn FnOnce() -> Result<(), String> + 'a>;

impl<'a> Undo<'a> {
    /// For what is done in this namespace, which is locked.
    pub(crate) fn within(netns: Rc<NetNs>) -> Self {
        Self { steps: Vec::new(), _locked: Some(netns) }
    }

    /// Adds the reversal of the step just done, and its name for the log.
    pub(crate) fn push(
        &mut self,
        name: &'static str,
        step: impl FnOnce() -> Result<(), String> + 'a,
    ) {
        self.steps.push((name, Box::new(step)));
    }

    /// ADD succeeded: nothing is taken back.
    pub(crate) fn disarm(mut self) {
        self.steps.clear();
    }
}

impl Drop for Undo<'_> {
    fn drop(&mut self) {
        while let Some((name, step)) = self.steps.pop() {
            // One that fails must not keep the others from running; the runtime's DEL tries again.
            let outcome = failpoint::hit("cni-undo").map_err(|fault| fault.to_string());
            if let Err(error) = outcome.and_then(|()| step()) {
                crate::log(&format!("taking back a failed ADD, cannot {name}: {error}"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::Undo;

    fn push<'a>(undo: &mut Undo<'a>, ran: &'a RefCell<Vec<u8>>, id: u8, fails: bool) {
        undo.push("test", move || {
            ran.borrow_mut().push(id);
            if fails { Err("refused".into()) } else { Ok(()) }
        });
    }

    #[test]
    fn steps_run_in_reverse_and_past_a_failure() {
        let ran = RefCell::new(Vec::new());
        let mut undo = Undo::default();
        for (id, fails) in [(1, false), (2, true), (3, false)] {
            push(&mut undo, &ran, id, fails);
        }
        drop(undo);
        assert_eq!(*ran.borrow(), [3, 2, 1]);
    }

    #[test]
    fn nothing_runs_once_disarmed() {
        let ran = RefCell::new(Vec::new());
        let mut undo = Undo::default();
        push(&mut undo, &ran, 1, false);
        undo.disarm();
        assert!(ran.borrow().is_empty());
    }
}
