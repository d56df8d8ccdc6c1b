//! The journal on disk: a line a transaction, as `vswitchd` writes it.
//!
//! Enters: edits. Leaves: at the next start, the edits again. A crash may leave half a line, behind
//! which nothing must be written. What was written outlives the process; what was synced outlives the
//! machine.

use controlplane::model::Edit;

/// The journal's file.
#[derive(Debug, Default)]
pub(crate) struct Disk {
    text: String,
    /// Bytes that outlive the machine.
    synced: usize,
    /// A sync has failed: no line is taken until all is written anew.
    pub(crate) is_lost: bool,
}

impl Disk {
    /// Adds a line.
    pub(crate) fn append(&mut self, edits: &[Edit]) {
        self.text.push_str(&line(edits));
        self.text.push('\n');
    }

    /// Adds the first half of a line: the machine's or the process's last act.
    pub(crate) fn append_half(&mut self, edits: &[Edit]) {
        let line = line(edits);
        let half = line.char_indices().nth(line.len() / 2).map_or(0, |(at, _)| at);
        self.text.push_str(&line[..half]);
    }

    /// Puts a snapshot in the place of everything, a line an edit.
    pub(crate) fn replace(&mut self, snapshot: &[Edit]) {
        self.text.clear();
        snapshot.iter().for_each(|edit| self.append(std::slice::from_ref(edit)));
        self.is_lost = false;
        self.sync();
    }

    /// What was written is on disk.
    pub(crate) fn sync(&mut self) {
        self.synced = self.text.len();
    }

    /// It may not be, and is cut off.
    pub(crate) fn fails_to_sync(&mut self) {
        self.text.truncate(self.synced);
        self.is_lost = true;
    }

    /// The machine stops: of what was not synced so many percent are there.
    pub(crate) fn power_fails(&mut self, percent: usize) {
        let rest = &self.text[self.synced..];
        let kept =
            rest.char_indices().nth(rest.len() * percent / 100).map_or(rest.len(), |(at, _)| at);
        self.text.truncate(self.synced + kept);
    }

    /// All edits. Half a line at the end was never acknowledged.
    ///
    /// # Errors
    /// If another line is damaged.
    pub(crate) fn read(&self) -> Result<Vec<Edit>, String> {
        let mut all = Vec::new();
        for (number, line) in self.text.split_inclusive('\n').enumerate() {
            let Some(line) = line.strip_suffix('\n') else { break };
            let edits: Vec<Edit> = serde_json::from_str(line)
                .map_err(|error| format!("line {number} of the journal is damaged: {error}"))?;
            all.extend(edits);
        }
        Ok(all)
    }
}

fn line(edits: &[Edit]) -> String {
    serde_json::to_string(edits).expect("an edit is plain data")
}
