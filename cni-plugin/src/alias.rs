//! The alias of a pod's interface, by which `ip link` shows its owner, and by which DEL and `--adjust` know it.
//!
//! Enters: an attachment, or a link. Leaves: the text, or the attachment that a link was made for. Called by
//! `pod`, which sets it, and by all that look for an interface of this plugin.

use std::hash::Hasher;

use api::{AttachmentId, Fnv};
use netlink::Link;

/// `IFALIASZ` of the kernel's include/uapi/linux/if.h, less the NUL that netlink's message has and the one
/// that the kernel sets behind it (`dev_set_alias` in net/core/dev.c).
const MAX_BYTES: usize = 254;

/// How every alias begins.
const MARK: &str = "vswitch ";

/// Stands between the beginning of a container id and the hash of all of it. No container id has it.
const SHORTENED: char = '~';

/// True for the TAP that was made for `attachment`.
pub(crate) fn is_ours(link: &Link, attachment: &AttachmentId) -> bool {
    link.kind.as_deref() == Some("tun") && link.alias.as_deref() == Some(&of(attachment))
}

/// The attachment that an interface was made for, if it is a TAP with an alias that has all of it.
pub(crate) fn attachment_of(link: &Link) -> Option<AttachmentId> {
    let marked = link.alias.as_deref()?.strip_prefix(MARK)?;
    let (container_id, ifname) = marked.rsplit_once('/')?;
    let attachment =
        AttachmentId { container_id: container_id.to_owned(), ifname: ifname.to_owned() };
    let is_whole = !container_id.contains(SHORTENED);
    (is_whole && ifname == link.name && is_ours(link, &attachment)).then_some(attachment)
}

/// The alias of an attachment's interface. Of a container id that is too long for it there is the beginning,
/// and a hash of the whole, so that another with the same beginning has another alias.
pub(crate) fn of(attachment: &AttachmentId) -> String {
    let AttachmentId { container_id, ifname } = attachment;
    let whole = format!("{MARK}{container_id}/{ifname}");
    if whole.len() <= MAX_BYTES {
        return whole;
    }
    let mut hash = Fnv::default();
    hash.write(container_id.as_bytes());
    let end = format!("{SHORTENED}{:016x}/{ifname}", hash.finish());
    // Container ids that were validated are ASCII.
    let room = MAX_BYTES.saturating_sub(MARK.len() + end.len());
    let beginning: String = container_id.chars().take(room).collect();
    format!("{MARK}{beginning}{end}")
}

#[cfg(test)]
mod tests {
    use api::AttachmentId;
    use netlink::Link;

    use super::{MAX_BYTES, attachment_of, is_ours, of};

    fn attachment(id: &str, ifname: &str) -> AttachmentId {
        AttachmentId { container_id: id.into(), ifname: ifname.into() }
    }

    fn link(name: &str, kind: &str, alias: &str) -> Link {
        Link {
            name: name.into(),
            kind: Some(kind.into()),
            alias: Some(alias.into()),
            ..Link::default()
        }
    }

    #[test]
    fn it_has_all_of_an_attachment_where_that_fits() {
        assert_eq!(of(&attachment("c1", "eth0")), "vswitch c1/eth0");
        // 8 bytes of the mark, 1 of the slash, 4 of the name.
        assert_eq!(of(&attachment(&"a".repeat(241), "eth0")).matches('a').count(), 241);
        let cut = of(&attachment(&"a".repeat(242), "eth0"));
        assert!(cut.contains("a~") && cut.ends_with("/eth0"), "{cut}");
    }

    #[test]
    fn a_shortened_one_is_that_of_one_container_and_one_interface_alone() {
        let beginning = "a".repeat(255);
        let ids = [format!("{beginning}b"), format!("{beginning}c"), beginning, "a".repeat(4000)];
        let names = ["eth0", "net1", "123456789012345"];
        let all: Vec<_> =
            ids.iter().flat_map(|id| names.map(|name| attachment(id, name))).collect();
        for one in &all {
            assert_eq!(of(one).len(), MAX_BYTES);
            let its_link = link(&one.ifname, "tun", &of(one));
            let owners = all.iter().filter(|other| is_ours(&its_link, other));
            assert_eq!(owners.collect::<Vec<_>>(), [one]);
        }
    }

    #[test]
    fn it_names_its_attachment_unless_it_was_shortened_or_is_anothers() {
        let odd = attachment("odd/id", "net1");
        assert_eq!(attachment_of(&link("net1", "tun", &of(&odd))), Some(odd));
        for (name, kind, alias) in [
            ("eth0", "tun", "vswitch c1/net1"),
            ("eth0", "veth", "vswitch c1/eth0"),
            ("eth0", "tun", "somebody c1/eth0"),
            ("eth0", "tun", &of(&attachment(&"a".repeat(400), "eth0"))),
        ] {
            assert_eq!(attachment_of(&link(name, kind, alias)), None, "{name} {kind} {alias}");
        }
    }
}
