//! The control codec, both directions: any bytes, cut anywhere, never panic, and a message that was
//! read is read again from what is written for it.

#![no_main]

use api::{Decoder, encode_request, encode_response};

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let Some((&cut, stream)) = input.split_first() else { return };
    let piece = usize::from(cut & 0x7f) + 1;
    if cut & 0x80 == 0 {
        requests(stream, piece);
    } else {
        responses(stream, piece);
    }
});

fn requests(stream: &[u8], piece: usize) {
    let mut decoder = Decoder::for_requests();
    for bytes in stream.chunks(piece) {
        decoder.feed(bytes);
        loop {
            match decoder.next_request() {
                Ok(Some(request)) => {
                    let mut again = Decoder::for_requests();
                    again.feed(&encode_request(&request).expect("no longer than it came"));
                    assert_eq!(again.next_request().expect("ours"), Some(request));
                    assert!(again.is_empty());
                }
                Ok(None) => break,
                Err(_) => return,
            }
        }
    }
}

fn responses(stream: &[u8], piece: usize) {
    let mut decoder = Decoder::for_responses();
    for bytes in stream.chunks(piece) {
        decoder.feed(bytes);
        loop {
            match decoder.next_response() {
                Ok(Some(response)) => {
                    let mut again = Decoder::for_responses();
                    again.feed(&encode_response(&response).expect("no longer than it came"));
                    assert_eq!(again.next_response().expect("ours"), Some(response));
                    assert!(again.is_empty());
                }
                Ok(None) => break,
                Err(_) => return,
            }
        }
    }
}
