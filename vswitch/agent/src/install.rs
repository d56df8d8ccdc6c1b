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

use serde_json::{Value, json};

use crate::backoff::Attempts;
use crate::daemon::DaemonClient;
use crate::error::{Error, Result, chain};

/// The plugin to which a conflist may leave hostPorts, and ours.
const PORTMAP: &str = "portmap";
const OURS: &str = "vswitch-cni";
/// The capability by which a runtime gives hostPorts to a plugin.
const PORT_MAPPINGS: &str = "portMappings";

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
    /// notices. Of our plugin and `portmap`, if it chains that, one alone serves hostPorts: `portmap` where
    /// the directory of the plugins has it.
    ///
    /// # Errors
    /// If a file cannot be read or written.
    pub fn install_configuration(&self, cni_bin_dir: &Path) -> Result<()> {
        let (mut content, target) = (read(&self.file)?, self.target());
        let is_portmap_there = is_there(&cni_bin_dir.join(PORTMAP));
        if let Some(other) = with_one_for_host_ports(&content, is_portmap_there) {
            if is_portmap_there {
                tracing::info!("the conflist leaves hostPorts to {PORTMAP}, which it chains");
            } else {
                tracing::warn!(
                    "there is no {PORTMAP} in {}: the conflist goes without it, and vswitchd serves hostPorts",
                    cni_bin_dir.display()
                );
            }
            content = other;
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

/// The conflist with one plugin that is told of hostPorts, if it chains `portmap`, and is not so already.
/// A plugin that is missing on the node fails every ADD, of pods without a hostPort too.
fn with_one_for_host_ports(conflist: &[u8], is_portmap_there: bool) -> Option<Vec<u8>> {
    let mut conflist: Value = serde_json::from_slice(conflist).ok()?;
    let before = conflist.clone();
    let is = |plugin: &Value, kind: &str| plugin.get("type").is_some_and(|of| of == kind);
    let plugins = conflist.get_mut("plugins")?.as_array_mut()?;
    if !plugins.iter().any(|plugin| is(plugin, PORTMAP)) {
        return None;
    }
    plugins.retain(|plugin| is_portmap_there || !is(plugin, PORTMAP));
    for ours in plugins.iter_mut().filter(|plugin| is(plugin, OURS)) {
        let Some(ours) = ours.as_object_mut() else { continue };
        let capabilities = ours.entry("capabilities").or_insert_with(|| json!({}));
        let Some(capabilities) = capabilities.as_object_mut() else { continue };
        if is_portmap_there {
            capabilities.remove(PORT_MAPPINGS);
        } else {
            capabilities.insert(PORT_MAPPINGS.into(), true.into());
        }
        if capabilities.is_empty() {
            ours.remove("capabilities");
        }
    }
    (conflist != before).then(|| format!("{conflist:#}\n").into_bytes())
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
