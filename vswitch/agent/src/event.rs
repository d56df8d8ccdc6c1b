//! Events, as the API server takes them.
//!
//! Enters: notices of `report`. Leaves: Events, to `cluster`. Pure. An Event's name is made of what it is
//! about, so that the same is there once, whichever agent makes it and however often one is started.

use std::hash::Hasher;

use api::{Fnv, LostPod};
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;

use crate::fields::check_name;
use crate::report::{KeptOut, Notice, Unenforced, Unserved};

/// Events of what has no namespace are kept in this one.
const CLUSTER_NAMESPACE: &str = "default";
/// Characters of the object's name in the Event's: a name has 253 at most, and 25 are added.
const NAME_CHARS: usize = 228;

/// The Events that make a notice known; the agent is that of the node `own`.
#[must_use]
pub fn events(own: &str, notice: &Notice, now: Timestamp) -> Vec<Event> {
    let events = match notice {
        Notice::KeptOut(kept_out) => vec![refused(kept_out)],
        Notice::Unserved(unserved) => unserved_service(unserved).into_iter().collect(),
        Notice::Unenforced(unenforced) => unenforced_policy(unenforced).into_iter().collect(),
        Notice::InterfaceLost(lost) => {
            [Some(lost_on_node(own, lost)), lost_by_pod(lost)].into_iter().flatten().collect()
        }
    };
    let now = Some(Time(now));
    let source =
        EventSource { component: Some("vswitch-agent".to_owned()), host: Some(own.to_owned()) };
    let complete = |event| Event {
        type_: Some("Warning".to_owned()),
        source: Some(source.clone()),
        first_timestamp: now.clone(),
        last_timestamp: now.clone(),
        count: Some(1),
        ..event
    };
    events.into_iter().map(complete).collect()
}

/// Whether an Event is about a pod: of others a burst is limited.
#[must_use]
pub fn is_of_pod(event: &Event) -> bool {
    event.involved_object.kind.as_deref() == Some("Pod")
}

fn refused(kept_out: &KeptOut) -> Event {
    let KeptOut { node, why } = kept_out;
    Event {
        reason: Some("VswitchPeerRefused".to_owned()),
        message: Some(format!("packets to its pods are not forwarded as it says: {why}")),
        ..about(node_reference(node), why)
    }
}

/// None for a Service whose name cannot be one.
fn unserved_service(unserved: &Unserved) -> Option<Event> {
    let (namespace, name) = unserved.service.split_once('/')?;
    check_name(namespace).ok()?;
    check_name(name).ok()?;
    let reference = ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Service".to_owned()),
        namespace: Some(namespace.to_owned()),
        name: Some(name.to_owned()),
        uid: unserved.uid.clone(),
        ..ObjectReference::default()
    };
    Some(Event {
        reason: Some("VswitchServiceRefused".to_owned()),
        message: Some(format!("pods are not served as it says: {}", unserved.why)),
        ..about(reference, &unserved.why)
    })
}

/// None for a policy whose name cannot be one.
fn unenforced_policy(unenforced: &Unenforced) -> Option<Event> {
    let (kind, name) = unenforced.policy.split_once(' ')?;
    let (namespace, name) = match name.split_once('/') {
        Some((namespace, name)) => (Some(namespace), name),
        None => (None, name),
    };
    namespace.map_or(Ok(()), check_name).ok()?;
    check_name(name).ok()?;
    let api_version = match kind {
        "NetworkPolicy" => "networking.k8s.io/v1",
        "ClusterNetworkPolicy" => "policy.networking.k8s.io/v1alpha2",
        _ => "policy.networking.k8s.io/v1alpha1",
    };
    let reference = ObjectReference {
        api_version: Some(api_version.to_owned()),
        kind: Some(kind.to_owned()),
        namespace: namespace.map(str::to_owned),
        name: Some(name.to_owned()),
        uid: unenforced.uid.clone(),
        ..ObjectReference::default()
    };
    Some(Event {
        reason: Some("VswitchPolicyRefused".to_owned()),
        message: Some(format!("it is not enforced as it says: {}", unenforced.why)),
        ..about(reference, &unenforced.why)
    })
}

fn lost_on_node(own: &str, lost: &LostPod) -> Event {
    let message = format!(
        "{} lost its interface, and nothing is forwarded for it: delete the pod, so that it is made anew",
        pod_name(lost)
    );
    Event {
        reason: Some("PodInterfaceLost".to_owned()),
        message: Some(message),
        ..about(node_reference(own), &attachment(lost))
    }
}

/// None for a pod whose name is unknown, or cannot be that of a pod.
fn lost_by_pod(lost: &LostPod) -> Option<Event> {
    let pod = lost.pod.as_ref()?;
    check_name(&pod.namespace).ok()?;
    check_name(&pod.name).ok()?;
    let reference = ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Pod".to_owned()),
        namespace: Some(pod.namespace.clone()),
        name: Some(pod.name.clone()),
        uid: pod.uid.clone(),
        ..ObjectReference::default()
    };
    let message = format!(
        "its interface {} is gone from its network namespace, and nothing is forwarded for it: delete the pod, so that it is made anew",
        lost.attachment.ifname
    );
    Some(Event {
        reason: Some("PodInterfaceLost".to_owned()),
        message: Some(message),
        ..about(reference, &attachment(lost))
    })
}

/// Name of a pod in messages.
#[must_use]
pub fn pod_name(lost: &LostPod) -> String {
    let LostPod { attachment, pod } = lost;
    let name = match pod {
        Some(pod) => format!("pod {}/{}", pod.namespace, pod.name),
        None => format!("container {}", attachment.container_id),
    };
    if attachment.ifname == "eth0" { name } else { format!("{name}:{}", attachment.ifname) }
}

fn attachment(lost: &LostPod) -> String {
    format!("{}/{}", lost.attachment.container_id, lost.attachment.ifname)
}

fn node_reference(node: &str) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Node".to_owned()),
        name: Some(node.to_owned()),
        // `kubectl describe node` looks for the name in this place, as the kubelet writes it.
        uid: Some(node.to_owned()),
        ..ObjectReference::default()
    }
}

/// An Event about an object; `what` tells it from others about the same.
fn about(object: ObjectReference, what: &str) -> Event {
    let name: String = object.name.iter().flat_map(|name| name.chars()).take(NAME_CHARS).collect();
    let name = name.trim_end_matches(['-', '.']);
    let namespace = object.namespace.clone().unwrap_or_else(|| CLUSTER_NAMESPACE.to_owned());
    let mut hash = Fnv::default();
    hash.write(what.as_bytes());
    Event {
        metadata: ObjectMeta {
            name: Some(format!("{name}.vswitch.{:016x}", hash.finish())),
            namespace: Some(namespace),
            ..ObjectMeta::default()
        },
        involved_object: object,
        ..Event::default()
    }
}

#[cfg(test)]
mod tests {
    use api::{AttachmentId, LostPod, PodName};
    use k8s_openapi::api::core::v1::Event;
    use k8s_openapi::jiff::Timestamp;

    use super::{events, is_of_pod};
    use crate::report::{KeptOut, Notice, Unenforced, Unserved};

    fn lost(container_id: &str, pod: Option<(&str, &str)>) -> Notice {
        Notice::InterfaceLost(LostPod {
            attachment: AttachmentId { container_id: container_id.into(), ifname: "eth0".into() },
            pod: pod.map(|(namespace, name)| PodName {
                namespace: namespace.into(),
                name: name.into(),
                uid: Some("1234".into()),
            }),
        })
    }

    fn of(notice: &Notice) -> Vec<Event> {
        events("node-a", notice, Timestamp::UNIX_EPOCH)
    }

    fn name(event: &Event) -> &str {
        event.metadata.name.as_deref().expect("named")
    }

    #[test]
    fn a_lost_interface_is_told_on_the_node_and_on_the_pod() {
        let events = of(&lost("c1", Some(("default", "web"))));
        let [node, pod] = events.as_slice() else { panic!("two") };
        assert!(!is_of_pod(node) && is_of_pod(pod));
        assert_eq!(node.metadata.namespace.as_deref(), Some("default"));
        assert_eq!(node.involved_object.uid.as_deref(), Some("node-a"));
        let message = node.message.as_deref().expect("one");
        assert!(message.starts_with("pod default/web lost its interface"), "{message}");
        assert_eq!(pod.metadata.namespace, pod.involved_object.namespace);
        assert_eq!(pod.involved_object.name.as_deref(), Some("web"));
        assert_eq!(pod.involved_object.uid.as_deref(), Some("1234"));
        for event in [node, pod] {
            assert_eq!(event.type_.as_deref(), Some("Warning"));
            assert_eq!(event.reason.as_deref(), Some("PodInterfaceLost"));
        }
    }

    #[test]
    fn the_same_loss_has_the_same_name_and_another_another() {
        let names = |id| {
            of(&lost(id, Some(("default", "web"))))
                .iter()
                .map(|e| name(e).to_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(names("c1"), names("c1"));
        assert!(names("c1").iter().zip(names("c2")).all(|(one, other)| *one != other));
    }

    #[test]
    fn a_pod_without_a_name_or_with_an_impossible_one_is_told_on_the_node_alone() {
        for pod in [None, Some(("default", "../secrets")), Some(("", "web"))] {
            let events = of(&lost("c1", pod));
            assert_eq!(events.len(), 1, "{pod:?}");
            assert!(!is_of_pod(&events[0]));
        }
    }

    #[test]
    fn a_service_is_told_in_its_own_namespace() {
        let notice = |service: &str| {
            let uid = Some("1234".to_owned());
            Notice::Unserved(Unserved { service: service.into(), uid, why: "x".into() })
        };
        let events = of(&notice("shop/db"));
        let [event] = events.as_slice() else { panic!("one") };
        assert_eq!(event.metadata.namespace.as_deref(), Some("shop"));
        assert_eq!(event.involved_object.kind.as_deref(), Some("Service"));
        assert_eq!(event.involved_object.name.as_deref(), Some("db"));
        assert_eq!(event.involved_object.uid.as_deref(), Some("1234"));
        assert_eq!(event.reason.as_deref(), Some("VswitchServiceRefused"));
        assert_eq!(event.message.as_deref(), Some("pods are not served as it says: x"));
        assert!(!is_of_pod(event));
        for impossible in ["shop", "shop/../db", "/db", "Shop/db"] {
            assert!(of(&notice(impossible)).is_empty(), "{impossible}");
        }
    }

    #[test]
    fn a_policy_is_told_where_its_events_are_looked_for() {
        let notice = |policy: &str| {
            let uid = Some("1234".to_owned());
            Notice::Unenforced(Unenforced { policy: policy.into(), uid, why: "x".into() })
        };
        for (policy, version, namespace, name) in [
            ("NetworkPolicy shop/db", "networking.k8s.io/v1", Some("shop"), "db"),
            ("ClusterNetworkPolicy db", "policy.networking.k8s.io/v1alpha2", None, "db"),
            (
                "BaselineAdminNetworkPolicy default",
                "policy.networking.k8s.io/v1alpha1",
                None,
                "default",
            ),
        ] {
            let events = of(&notice(policy));
            let [event] = events.as_slice() else { panic!("one") };
            let object = &event.involved_object;
            assert_eq!(object.api_version.as_deref(), Some(version));
            assert_eq!(object.kind.as_deref(), policy.split(' ').next());
            assert_eq!(
                (object.namespace.as_deref(), object.name.as_deref()),
                (namespace, Some(name))
            );
            assert_eq!(event.metadata.namespace.as_deref(), namespace.or(Some("default")));
            assert_eq!(event.reason.as_deref(), Some("VswitchPolicyRefused"));
            assert!(!is_of_pod(event));
        }
        for impossible in ["NetworkPolicy", "NetworkPolicy shop/../db", "AdminNetworkPolicy A"] {
            assert!(of(&notice(impossible)).is_empty(), "{impossible}");
        }
    }

    #[test]
    fn a_long_name_leaves_a_name_that_the_server_takes() {
        let node = format!("{}.{}", "a".repeat(227), "b".repeat(25));
        let events = of(&Notice::KeptOut(KeptOut { node: node.clone(), why: "x".into() }));
        let name = name(&events[0]);
        assert!(name.len() <= 253 && !name.contains(".."), "{name}");
        assert_eq!(events[0].involved_object.name, Some(node));
    }
}
