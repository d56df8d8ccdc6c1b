//! A frame and what its sender left undone: what is handed from door to door.

use crate::{Frame, NoRoom, Offload};

/// One packet, superframes included.
#[derive(Debug)]
pub struct Packet {
    /// The bytes, from the Ethernet header on.
    pub frame: Frame,
    /// What is still to be done before they reach a wire.
    pub offload: Offload,
}

impl Packet {
    /// A packet with nothing left undone.
    #[must_use]
    pub fn plain(frame: Frame) -> Self {
        Self { frame, offload: Offload::default() }
    }

    /// Puts `count` bytes before the packet and returns them, to be written.
    ///
    /// # Errors
    /// `NoRoom` if the headroom is smaller; the packet is then unchanged.
    #[inline]
    pub fn push(&mut self, count: usize) -> Result<&mut [u8], NoRoom> {
        let bytes = self.frame.push(count)?;
        self.offload.push(count);
        Ok(bytes)
    }

    /// Takes `count` bytes from the front; false, and unchanged, if there are fewer.
    #[inline]
    #[must_use]
    pub fn pull(&mut self, count: usize) -> bool {
        let done = self.frame.pull(count);
        if done {
            self.offload.pull(count);
        }
        done
    }
}

#[cfg(test)]
mod tests {
    use crate::{Checksum, NoRoom, Offload, Packet, Pool};

    #[test]
    fn offload_follows_the_front_of_the_packet() {
        let pool = Pool::new(1);
        let mut frame = pool.alloc().expect("free");
        frame.extend_from_slice(&[0; 60]).expect("room");
        let partial = Checksum::Partial { start: 34, offset: 6 };
        let mut packet = Packet { frame, offload: Offload { checksum: partial, gso: None } };

        packet.push(50).expect("room").fill(0);
        assert_eq!(packet.offload.checksum, Checksum::Partial { start: 84, offset: 6 });
        assert_eq!(packet.push(1000).err(), Some(NoRoom));
        assert!(packet.pull(50));
        assert_eq!(packet.offload.checksum, partial);
        assert!(!packet.pull(61));
        assert_eq!(packet.offload.checksum, partial);
    }
}
