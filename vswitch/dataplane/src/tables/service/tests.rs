#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use core::net::{IpAddr, Ipv4Addr};

use super::{
    Backend, BackendState, Backends, ClientAffinity, ConnectionCount, Service, WithoutBackend,
};
use crate::session::{Endpoint, Tuple};
use crate::wire::Protocol;

fn endpoint(number: u32) -> Endpoint {
    let address = Ipv4Addr::from_bits(u32::from(Ipv4Addr::new(198, 18, 0, 0)) + number);
    Endpoint { address: address.into(), port: 8080 }
}

fn usable(numbers: impl IntoIterator<Item = u32>) -> Backends {
    let backend = |number| Backend { endpoint: endpoint(number), state: BackendState::Usable };
    Backends::new(numbers.into_iter().map(backend))
}

/// Hashes spread over all there are.
fn hashes() -> impl Iterator<Item = u64> {
    (0..20_000u64).map(|number| number.wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

#[test]
fn backends_have_equal_shares() {
    for count in [1, 2, 3, 10, 100] {
        let backends = usable(0..count);
        let mut shares = vec![0u32; count as usize];
        for hash in hashes() {
            let chosen = backends.choose(hash).unwrap();
            shares[backends.all().iter().position(|one| one == chosen).unwrap()] += 1;
        }
        let even = 20_000 / count;
        assert!(shares.iter().all(|share| share.abs_diff(even) <= even / 10 + 2), "{shares:?}");
    }
}

/// Of flows of the backends that stay, over many sets of backends.
#[test]
fn flows_of_others_hardly_move_when_a_backend_goes() {
    for (count, most_percent) in [(2, 0), (3, 3), (4, 4), (10, 4), (100, 3)] {
        let (mut moved, mut stayed) = (0, 0);
        for set in 0..20 {
            let numbers = set * 1000..set * 1000 + count;
            let gone = endpoint(set * 1000 + 1);
            let before = usable(numbers.clone());
            let after = usable(numbers.filter(|one| endpoint(*one) != gone));
            for hash in hashes().step_by(10) {
                let (old, new) = (before.choose(hash).unwrap(), after.choose(hash).unwrap());
                assert_ne!(new.endpoint, gone);
                moved += u32::from(old.endpoint != gone && old != new);
                stayed += u32::from(old.endpoint != gone);
            }
        }
        let most = stayed * most_percent / 100;
        assert!(moved <= most, "{moved} of {stayed} flows moved, of {count} backends");
    }
}

/// Other nodes, and other versions of this program, choose alike.
#[test]
fn the_choice_is_defined() {
    let backends = usable(0..3);
    let flow = |port: u16| {
        let client = Endpoint { address: IpAddr::from([198, 19, 0, 7]), port };
        let service = Endpoint { address: IpAddr::from([198, 18, 255, 1]), port: 80 };
        Tuple::new(0, Protocol::TCP, client, service).unwrap()
    };
    let service = |affinity| Service {
        generation: 1,
        backends: backends.clone().into(),
        without_backend: WithoutBackend::Refuse,
        affinity,
        sources: None,
        connections: ConnectionCount::default(),
    };
    let chosen = |service: &Service, port| {
        let chosen = service.choose(&flow(port)).unwrap();
        backends.all().iter().position(|one| one == chosen).unwrap()
    };
    let any: Vec<_> = (40_000..40_012).map(|port| chosen(&service(None), port)).collect();
    assert_eq!(any, CHOSEN);
    let affinity = ClientAffinity { service: 1, timeout_s: 60 };
    let same: Vec<_> =
        (40_000..40_012).map(|port| chosen(&service(Some(affinity)), port)).collect();
    assert!(same.iter().all(|one| *one == same[0]), "{same:?}");
}

const FIRST_IDENTITY: u32 = 602_138_533;

const CHOSEN: [usize; 12] = [2, 1, 0, 1, 2, 0, 0, 0, 1, 1, 1, 0];

#[test]
fn only_usable_backends_are_chosen_and_others_are_known() {
    let state = |number, state| Backend { endpoint: endpoint(number), state };
    let backends = Backends::new([
        state(3, BackendState::NotServing),
        state(1, BackendState::Serving),
        state(2, BackendState::Usable),
        state(2, BackendState::NotServing),
    ]);
    assert!(hashes().all(|hash| backends.choose(hash).unwrap().endpoint == endpoint(2)));
    assert_eq!(backends.at(endpoint(1)).unwrap().state, BackendState::Serving);
    assert_eq!(backends.at(endpoint(2)).unwrap().state, BackendState::Usable);
    assert_eq!(backends.at(endpoint(4)), None);
    assert_eq!(Backends::default().choose(7), None);
    let identity = |number| state(number, BackendState::Usable).identity();
    assert_eq!(backends.usable(identity(2)).unwrap().endpoint, endpoint(2));
    for other in [identity(1), identity(3), identity(4), 0, u32::MAX] {
        assert_eq!(backends.usable(other), None);
    }
}

#[test]
fn each_of_many_backends_is_found_by_its_identity() {
    let backends = usable(0..5000);
    for number in 0..5000 {
        let identity =
            Backend { endpoint: endpoint(number), state: BackendState::Usable }.identity();
        assert_eq!(backends.usable(identity).unwrap().endpoint, endpoint(number));
    }
    // Other nodes, and other versions of this program, know them by the same number.
    let first = Backend { endpoint: endpoint(0), state: BackendState::Serving };
    assert_eq!(first.identity(), FIRST_IDENTITY);
}
