//! Messages of nfnetlink, as far as nftables and connection tracking share them.

/// `struct nfgenmsg` before the attributes.
pub(crate) const HEADER_BYTES: usize = 4;
/// NLA_F_NESTED.
const NESTED: u16 = 0x8000;
/// NLA_F_NESTED and NLA_F_NET_BYTEORDER.
const TYPE_FLAGS: u16 = 0xc000;

/// The value of the first attribute of a type: `struct nlattr` has length and type, and is followed by
/// the value; the next one begins at a multiple of four bytes.
pub(crate) fn attribute(mut rest: &[u8], wanted: u16) -> Option<&[u8]> {
    while let Some(([l0, l1, t0, t1], _)) = rest.split_first_chunk::<4>() {
        let len = usize::from(u16::from_ne_bytes([*l0, *l1]));
        let value = rest.get(4..len)?;
        if u16::from_ne_bytes([*t0, *t1]) & !TYPE_FLAGS == wanted {
            return Some(value);
        }
        rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
    None
}

/// Appends an attribute. Values are far shorter than the 65,531 bytes that one can have.
pub(crate) fn put(bytes: &mut Vec<u8>, kind: u16, value: &[u8]) {
    bytes.extend((value.len() as u16 + 4).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

/// Appends an attribute that holds attributes.
pub(crate) fn put_nested(bytes: &mut Vec<u8>, kind: u16, value: &[u8]) {
    put(bytes, kind | NESTED, value);
}
