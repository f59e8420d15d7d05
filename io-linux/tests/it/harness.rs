//! The harness proves its scenarios where nothing can be wrong but the scenario: on a direct
//! connection.

use crate::scenarios;
use crate::support::site::Through;

#[test]
fn direct_one_large_stream() {
    scenarios::one_large_stream(Through::Nothing);
}

#[test]
fn direct_echo_in_random_pieces() {
    scenarios::echo_in_random_pieces(Through::Nothing);
}

#[test]
fn direct_frame_byte_by_byte() {
    scenarios::frame_byte_by_byte(Through::Nothing);
}

#[test]
fn direct_frame_and_more_in_one_segment() {
    scenarios::frame_and_more_in_one_segment(Through::Nothing);
}

#[test]
fn direct_large_first_frame() {
    scenarios::large_first_frame(Through::Nothing);
}

#[test]
fn direct_three_wait_before_the_first_poll() {
    scenarios::three_wait_before_the_first_poll(Through::Nothing);
}

#[test]
fn direct_client_closes_first() {
    scenarios::client_closes_first(Through::Nothing);
}

#[test]
fn direct_backend_closes_first() {
    scenarios::backend_closes_first(Through::Nothing);
}

#[test]
fn direct_client_resets() {
    scenarios::client_resets(Through::Nothing);
}

#[test]
fn direct_backend_resets() {
    scenarios::backend_resets(Through::Nothing);
}

#[test]
fn direct_client_resets_behind_a_backlog() {
    scenarios::client_resets_behind_a_backlog(Through::Nothing);
}

#[test]
fn direct_backend_resets_behind_a_backlog() {
    scenarios::backend_resets_behind_a_backlog(Through::Nothing);
}

#[test]
fn direct_backend_talks_first() {
    scenarios::backend_talks_first(Through::Nothing);
}

#[test]
fn direct_paused_client() {
    scenarios::paused_client(Through::Nothing);
}

#[test]
fn direct_paused_backend() {
    scenarios::paused_backend(Through::Nothing);
}

#[test]
fn direct_urgent_data() {
    scenarios::urgent_data(Through::Nothing);
}

#[test]
fn direct_urgent_data_in_the_first_frame() {
    scenarios::urgent_data_in_the_first_frame(Through::Nothing);
}

#[test]
fn direct_everything_at_once() {
    scenarios::everything_at_once(Through::Nothing);
}
