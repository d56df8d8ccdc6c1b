//! The journal on disk: a line a transaction, as `vswitchd` writes it.
//!
//! Enters: edits. Leaves: at the next start, the edits again. A crash may leave half a line, behind
//! which nothing must be written.

use controlplane::model::Edit;

/// The journal's file.
#[derive(Debug, Default)]
pub(crate) struct Disk {
    text: String,
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
