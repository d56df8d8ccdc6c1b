//! The address by which the node's kernel masquerades: which one it is, and that no pod gets it.

use std::net::IpAddr;

use api::{AttachmentId, Delegated, Mode, Reserve};
use ipnet::IpNet;

use crate::config::Config;
use crate::model::{Edit, Model};

fn config(prefixes: &str) -> Config {
    let prefixes = match prefixes {
        "" => String::new(),
        some => format!("pod_prefixes = [{some}]\n"),
    };
    let text = format!(
        "[node]\nname = \"a\"\n{prefixes}cluster_prefixes = [\"198.18.0.0/16\", \"fd00:18::/32\"]\n"
    );
    Config::parse("f", &text).unwrap_or_else(|problems| panic!("{problems:?}"))
}

fn addresses(text: &str) -> Vec<IpAddr> {
    text.split_whitespace().map(|one| one.parse().expect("an address")).collect()
}

fn request(container: &str) -> Reserve {
    Reserve {
        attachment: AttachmentId { container_id: container.into(), ifname: "eth0".into() },
        netns: "/run/netns/x".into(),
        network: None,
        pod: None,
        container_name: None,
        mode: Some(Mode::Routed),
        delegated: None,
        requested: Vec::new(),
        ranges: Vec::new(),
        mac: None,
        bandwidth: Default::default(),
        queues: 1,
        port_mappings: Vec::new(),
    }
}

/// The addresses that it gets, or why none.
fn plug(model: &mut Model, config: &Config, request: &Reserve) -> Result<Vec<IpAddr>, String> {
    let reserved = model.reserve(config, request, 1450, false);
    let (edits, reserved) = reserved.map_err(|refused| refused.to_string())?;
    model.apply_all(&edits);
    Ok(reserved.addresses.iter().map(IpNet::addr).collect())
}

fn plug_at(model: &mut Model, config: &Config, container: &str, address: &str) {
    let request = Reserve { requested: addresses(address), ..request(container) };
    plug(model, config, &request).expect("free");
}

fn delegated(container: &str, address: &str) -> Reserve {
    let given =
        Delegated { addresses: vec![address.parse().expect("a prefix")], gateways: Vec::new() };
    Reserve { delegated: Some(Box::new(given)), ..request(container) }
}

fn unplug(model: &mut Model, container: &str) {
    let edits = model.detach(&request(container).attachment);
    model.apply_all(&edits);
}

#[test]
fn it_is_the_highest_of_each_prefix_and_no_pods() {
    let config = config("\"198.18.1.0/29\", \"fd00:18:1::/64\"");
    let mut model = Model::new(&config);
    assert_eq!(model.pods.masquerade(), addresses("198.18.1.6 fd00:18:1:0:ffff:ffff:ffff:ffff"));
    let own: Vec<_> = model.pods.own_addresses().skip(2).collect();
    assert_eq!(own, addresses("198.18.1.1 fd00:18:1::1"));
    let wanted = Reserve { requested: addresses("198.18.1.6"), ..request("x") };
    assert_eq!(
        plug(&mut model, &config, &wanted),
        Err("198.18.1.6 cannot be a pod's: it is the one by which this node's kernel masquerades"
            .into())
    );
    for number in 2..6 {
        let got = plug(&mut model, &config, &request(&number.to_string())).expect("free");
        assert_eq!(got[0], IpAddr::from([198, 18, 1, number]));
    }
    let refused = plug(&mut model, &config, &request("more")).expect_err("full");
    assert!(refused.contains("no address of 198.18.1.0/29 is left"), "{refused}");
}

/// A version that kept none may have given it to a pod.
#[test]
fn where_a_pod_has_the_highest_it_is_the_next_until_that_pod_goes() {
    let config = config("\"198.18.1.0/24\"");
    let mut before = Model::new(&config);
    before.ipam.keep(&[]);
    plug_at(&mut before, &config, "old", "198.18.1.254");
    let journal = before.snapshot();

    let mut model = Model::restored(&config, &journal);
    assert_eq!(model.pods.masquerade(), addresses("198.18.1.253"));
    plug_at(&mut model, &config, "new", "198.18.1.7");
    let again = Model::restored(&config, &model.snapshot());
    assert_eq!(again.pods.masquerade(), addresses("198.18.1.253"), "a restart changes nothing");
    unplug(&mut model, "old");
    assert_eq!(model.pods.masquerade(), addresses("198.18.1.254"));
    plug_at(&mut model, &config, "another", "198.18.1.253");
}

#[test]
fn a_full_prefix_has_one_again_when_a_pod_goes() {
    let config = config("\"198.18.1.0/29\"");
    let mut before = Model::new(&config);
    for number in 2..7 {
        before.ipam.keep(&[]);
        plug_at(&mut before, &config, &number.to_string(), &format!("198.18.1.{number}"));
    }
    let mut model = Model::restored(&config, &before.snapshot());
    assert_eq!(model.pods.masquerade(), addresses(""));
    unplug(&mut model, "3");
    assert_eq!(model.pods.masquerade(), addresses("198.18.1.3"));
}

#[test]
fn another_ipam_may_give_any_address_and_so_the_node_takes_none() {
    let config = config("\"198.18.1.0/24\", \"fd00:18:1::/64\"");
    let mut model = Model::new(&config);
    let of_ours = addresses("198.18.1.254 fd00:18:1:0:ffff:ffff:ffff:ffff");
    assert_eq!(model.pods.masquerade(), of_ours);
    plug(&mut model, &config, &delegated("a", "198.18.1.254/24")).expect("it is theirs to give");
    assert_eq!(model.pods.masquerade(), &of_ours[1..]);
    plug(&mut model, &config, &delegated("b", "fd00:18:1::5/64")).expect("free");
    assert_eq!(model.pods.masquerade(), addresses(""));
    unplug(&mut model, "a");
    unplug(&mut model, "b");
    assert_eq!(model.pods.masquerade(), of_ours);
    // From beyond the node's prefixes it concerns none of them.
    plug(&mut model, &config, &delegated("c", "198.18.77.5/24")).expect("free");
    assert_eq!(model.pods.masquerade(), of_ours);
}

#[test]
fn it_follows_the_prefixes_that_the_cluster_assigns() {
    let config = config("");
    let mut model = Model::new(&config);
    let set = |model: &mut Model, prefix: &str| {
        let prefixes = [prefix.parse().expect("a prefix")];
        let edits = model.set_pod_prefixes(&config, &prefixes).expect("free");
        model.apply_all(&edits)
    };
    set(&mut model, "198.18.1.0/24");
    plug(&mut model, &config, &request("old")).expect("free");
    let undo = set(&mut model, "198.18.2.0/24");
    assert_eq!(model.pods.masquerade(), addresses("198.18.2.254"));
    let restored = Model::restored(&config, &model.snapshot());
    assert_eq!(restored.pods, model.pods);
    assert!(
        !serde_json::to_string(&Edit::PodPrefixes { pods: model.pods.clone() })
            .expect("encodes")
            .contains("254")
    );
    model.apply_all(&undo);
    assert_eq!(model.pods.masquerade(), addresses("198.18.1.254"));
}

#[test]
fn a_small_prefix_is_the_pods() {
    for (prefixes, expected) in [
        ("\"198.18.1.0/30\", \"fd00:18:1::/126\"", ""),
        ("\"198.18.1.0/29\", \"fd00:18:1::/125\"", "198.18.1.6 fd00:18:1::7"),
    ] {
        assert_eq!(Model::new(&config(prefixes)).pods.masquerade(), addresses(expected));
    }
}
