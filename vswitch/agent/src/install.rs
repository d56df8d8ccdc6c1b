//! The CNI plugin and the conflist on the node.
//!
//! Enters: files to install, and the daemon's answer. Leaves: the files in the runtime's directories.
//! The order matters: the plugin first; the conflist last, and only when the daemon networks pods,
//! as from then on the runtime starts some.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::backoff::Attempts;
use crate::daemon::DaemonClient;
use crate::error::{Error, Result, chain};

/// The plugin by which runtimes serve hostPorts.
const PORTMAP: &str = "portmap";

const FIRST_RETRY: Duration = Duration::from_millis(100);
const LONGEST_RETRY: Duration = Duration::from_secs(2);

/// A file, and the directory that it goes into under its own name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstallTarget {
    /// The file to install.
    pub file: PathBuf,
    /// The runtime's directory.
    pub directory: PathBuf,
}

impl InstallTarget {
    /// Where it will be.
    #[must_use]
    pub fn target(&self) -> PathBuf {
        self.directory.join(self.file.file_name().unwrap_or_default())
    }

    /// Installs a program: by rename, as a runtime may be executing the old one.
    ///
    /// # Errors
    /// If a file cannot be read or written.
    pub fn install_program(&self) -> Result<()> {
        let content = read(&self.file)?;
        if fs::read(self.target()).is_ok_and(|there| there == content) {
            return Ok(());
        }
        replace(&self.target(), &content, 0o755)
    }

    /// Installs a conflist, if it is not there already: whole at any time, and so that the runtime
    /// notices. `portmap` is left out if the directory of the plugins has none.
    ///
    /// # Errors
    /// If a file cannot be read or written.
    pub fn install_configuration(&self, cni_bin_dir: &Path) -> Result<()> {
        let (mut content, target) = (read(&self.file)?, self.target());
        if let Some(shorter) = without_portmap(&content)
            && !is_there(&cni_bin_dir.join(PORTMAP))
        {
            tracing::warn!(
                "there is no {PORTMAP} in {}: the conflist goes without it, and a hostPort has no effect; install the CNI plugins there, and start this anew",
                cni_bin_dir.display()
            );
            content = shorter;
        }
        if fs::read(&target).is_ok_and(|there| there == content) {
            return Ok(());
        }
        replace(&target, &content, 0o644)?;
        // containerd does not look at a file that is renamed into the directory, only at one that is
        // written there. The same bytes again: no reader sees anything else.
        let failed = |source| Error::File { action: "write", path: target.clone(), source };
        let again = File::options().write(true).open(&target).map_err(failed)?;
        (&again).write_all(&content).map_err(failed)?;
        tracing::info!("installed {}", target.display());
        Ok(())
    }

    /// Removes what was installed.
    ///
    /// # Errors
    /// If it is there and cannot be removed.
    pub fn remove(&self) -> Result<()> {
        let path = self.target();
        match fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(Error::File { action: "remove", path, source })
            }
            _ => Ok(()),
        }
    }
}

/// Waits until the daemon answers and has prefixes for its pods.
///
/// # Errors
/// `NotReady` after `patience`.
pub async fn wait_for_daemon(socket: &Path, patience: Duration) -> Result<()> {
    let (started, mut attempts) = (Instant::now(), Attempts::between(FIRST_RETRY, LONGEST_RETRY));
    loop {
        let why = match readiness(socket).await {
            Ok(true) => return Ok(()),
            Ok(false) => "it has no pod prefixes yet".to_owned(),
            Err(error) => chain(&error),
        };
        let delay = attempts.delay();
        if started.elapsed() + delay > patience {
            return Err(Error::NotReady { waited: patience, why });
        }
        tokio::time::sleep(delay).await;
    }
}

async fn readiness(socket: &Path) -> Result<bool> {
    let status = DaemonClient::connect(socket).await?.status().await?;
    Ok(!status.pod_prefixes.is_empty())
}

/// The conflist without the plugin, if it chains it: one that is missing on the node fails every ADD,
/// of pods without a hostPort too.
fn without_portmap(conflist: &[u8]) -> Option<Vec<u8>> {
    let mut conflist: serde_json::Value = serde_json::from_slice(conflist).ok()?;
    let plugins = conflist.get_mut("plugins")?.as_array_mut()?;
    let all = plugins.len();
    plugins.retain(|plugin| plugin.get("type").is_none_or(|kind| kind != PORTMAP));
    let is_shorter = plugins.len() < all;
    is_shorter.then(|| format!("{conflist:#}\n").into_bytes())
}

/// A link counts, wherever it leads: on the node that may be another place than in a container.
fn is_there(program: &Path) -> bool {
    fs::symlink_metadata(program).is_ok()
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).map_err(|source| Error::File { action: "read", path: path.to_owned(), source })
}

/// Beside it, then in its place. A name with a leading dot is no configuration to any runtime.
fn replace(target: &Path, content: &[u8], mode: u32) -> Result<()> {
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    let new = target.with_file_name(format!(".{name}.new"));
    let write = || {
        let _ = fs::remove_file(&new);
        let mut file = File::options().write(true).create_new(true).mode(mode).open(&new)?;
        file.write_all(content)?;
        // Whatever the umask is.
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        file.sync_all()?;
        fs::rename(&new, target)
    };
    write().map_err(|source| {
        let _ = fs::remove_file(&new);
        Error::File { action: "write", path: target.to_owned(), source }
    })
}

#[cfg(test)]
mod tests;
