//! The table.

use tlb_engine::ids::Side::{Backend as B, Client as C};

use super::Act::{
    Accept, Await, Close, Connect, ConnectSmall, Cut, End, Eof, Expect, Fin, Garbage, Reset, Send,
    Urgent,
};
use super::{Backend, HEAD, PREREAD_LIMIT, Row, Step};

const H: usize = HEAD.len();
/// Pieces as large as a call takes.
const WHOLE: usize = 64 * 1024;
const COMPLETED: &[&str] = &["completed"];
const CLIENT_RESET: &[&str] = &["client-reset"];
const BACKEND_RESET: &[&str] = &["backend-reset"];

const URGENT: &str = "turmoil has no urgent data";
const DEFERRED: &str =
    "the kernel keeps a connection to itself until the client has sent something";

/// A row that every world runs.
const fn row(name: &'static str, reasons: &'static [&'static str], steps: &'static [Step]) -> Row {
    Row {
        name,
        backend: Backend::Listens,
        steps,
        reasons,
        not_in_model: None,
        not_in_turmoil: None,
        not_in_kernel: None,
    }
}

impl Row {
    const fn at(self, backend: Backend) -> Self {
        Self { backend, ..self }
    }

    const fn not_in_turmoil(self, why: &'static str) -> Self {
        Self {
            not_in_turmoil: Some(why),
            ..self
        }
    }

    const fn not_in_kernel(self, why: &'static str) -> Self {
        Self {
            not_in_kernel: Some(why),
            ..self
        }
    }
}

/// All scenarios.
#[rustfmt::skip]
pub const ROWS: &[Row] = &[
    // Streams that end in order.
    row(
        "one_byte_each_way",
        COMPLETED,
        &[
            (C, Connect), (C, Send(H, WHOLE)), (B, Accept), (B, Expect(H, WHOLE)), (B, Send(1, 1)),
            (C, Expect(1, 1)), (C, Send(1, 1)), (B, Expect(1, 1)), (C, Fin), (B, Eof), (B, Fin),
            (C, Eof),
        ],
    ),
    row(
        "frame_and_fin_at_once",
        COMPLETED,
        &[
            (C, Connect), (C, Send(H, WHOLE)), (C, Fin), (B, Accept), (B, Expect(H, WHOLE)),
            (B, Eof), (B, Fin), (C, Eof),
        ],
    ),
    row(
        "byte_by_byte",
        COMPLETED,
        &[
            (C, Connect), (C, Send(H + 200, 1)), (B, Accept), (B, Expect(H + 200, WHOLE)),
            (B, Send(200, 1)), (C, Expect(200, WHOLE)), (C, Fin), (B, Eof), (B, Fin), (C, Eof),
        ],
    ),
    row(
        "read_byte_by_byte",
        COMPLETED,
        &[
            (C, Connect), (C, Send(H + 200, WHOLE)), (B, Accept), (B, Expect(H + 200, 1)),
            (B, Send(200, WHOLE)), (C, Expect(200, 1)), (C, Fin), (B, Eof), (B, Fin), (C, Eof),
        ],
    ),
    row(
        "frame_longer_than_the_preread_limit",
        COMPLETED,
        &[
            (C, Connect), (C, Send(60_000, WHOLE)), (B, Accept), (B, Expect(60_000, WHOLE)),
            (C, Fin), (B, Eof), (B, Fin), (C, Eof),
        ],
    ),
    row(
        "big_forward",
        COMPLETED,
        &[
            (C, Connect), (C, Send(3_000_000, WHOLE)), (C, Fin), (B, Accept),
            (B, Expect(3_000_000, WHOLE)), (B, Eof), (B, Fin), (C, Eof),
        ],
    ),
    row(
        "big_return",
        COMPLETED,
        &[
            (C, Connect), (C, Send(H, WHOLE)), (B, Accept), (B, Expect(H, WHOLE)),
            (B, Send(3_000_000, WHOLE)), (B, Fin), (C, Expect(3_000_000, WHOLE)), (C, Eof),
            (C, Fin), (B, Eof),
        ],
    ),
    row(
        "both_ways_at_once",
        COMPLETED,
        &[
            (C, Connect), (C, Send(1_000_000, WHOLE)), (B, Accept), (B, Send(1_000_000, 1000)),
            (C, Expect(1_000_000, WHOLE)), (B, Expect(1_000_000, 5000)), (C, Fin), (B, Fin),
            (B, Eof), (C, Eof),
        ],
    ),
    row(
        "rounds_of_messages",
        COMPLETED,
        &[
            (C, Connect), (C, Send(100, 100)), (B, Accept), (B, Expect(100, WHOLE)),
            (B, Send(50, 50)), (C, Expect(50, WHOLE)), (C, Send(100, 100)), (B, Expect(100, WHOLE)),
            (B, Send(40_000, WHOLE)), (C, Expect(40_000, WHOLE)), (C, Send(70_000, WHOLE)),
            (B, Expect(70_000, WHOLE)), (B, Send(1, 1)), (C, Expect(1, 1)), (C, Fin), (B, Eof),
            (B, Fin), (C, Eof),
        ],
    ),
    // Half-close.
    row(
        "client_ends_then_the_answer_comes",
        COMPLETED,
        &[
            (C, Connect), (C, Send(100, WHOLE)), (C, Fin), (B, Accept), (B, Expect(100, WHOLE)),
            (B, Eof), (B, Send(50_000, WHOLE)), (B, Fin), (C, Expect(50_000, WHOLE)), (C, Eof),
        ],
    ),
    row(
        "backend_ends_then_the_client_goes_on",
        COMPLETED,
        &[
            (C, Connect), (C, Send(H, WHOLE)), (B, Accept), (B, Expect(H, WHOLE)), (B, Fin),
            (C, Eof), (C, Send(50_000, WHOLE)), (C, Fin), (B, Expect(50_000, WHOLE)), (B, Eof),
        ],
    ),
    row(
        "backend_ends_before_it_reads",
        COMPLETED,
        &[
            (C, Connect), (C, Send(H, WHOLE)), (B, Accept), (B, Fin), (C, Eof),
            (B, Expect(H, WHOLE)), (C, Fin), (B, Eof),
        ],
    ),
    row(
        "both_end_at_once",
        COMPLETED,
        &[
            (C, Connect), (C, Send(H, WHOLE)), (B, Accept), (C, Fin), (B, Fin), (C, Eof),
            (B, Expect(H, WHOLE)), (B, Eof),
        ],
    ),
    row(
        "fin_behind_data_in_flight",
        COMPLETED,
        &[
            (C, Connect), (C, Send(200_000, WHOLE)), (C, Fin), (B, Accept), (B, Await),
            (B, Send(10, 10)), (C, Expect(10, 10)), (B, Expect(200_000, 3000)), (B, Eof), (B, Fin),
            (C, Eof),
        ],
    ),
    row(
        "client_closes_without_a_word",
        COMPLETED,
        &[
            (C, Connect), (C, Send(H, WHOLE)), (B, Accept), (B, Expect(H, WHOLE)), (C, Close),
            (B, Eof), (B, Close),
        ],
    ),
    row(
        "backend_closes_after_its_answer",
        COMPLETED,
        &[
            (C, Connect), (C, Send(H, WHOLE)), (B, Accept), (B, Expect(H, WHOLE)),
            (B, Send(1000, 1000)), (B, Close), (C, Expect(1000, WHOLE)), (C, Eof), (C, Close),
        ],
    ),
    row(
        "backend_talks_first",
        COMPLETED,
        &[
            (C, Connect), (C, Send(H, WHOLE)), (B, Accept), (B, Send(20, 20)), (C, Expect(20, 20)),
            (B, Expect(H, WHOLE)), (C, Fin), (B, Eof), (B, Fin), (C, Eof),
        ],
    ),
    row(
        "answer_before_the_whole_request",
        COMPLETED,
        &[
            (C, Connect), (C, Send(500_000, WHOLE)), (B, Accept), (B, Send(100, 100)),
            (C, Expect(100, WHOLE)), (B, Expect(500_000, WHOLE)), (B, Send(100, 100)),
            (C, Expect(100, WHOLE)), (C, Fin), (B, Eof), (B, Fin), (C, Eof),
        ],
    ),
    // Readers who pause.
    row(
        "paused_client_goes_on",
        COMPLETED,
        &[
            (C, Connect), (C, Send(H, WHOLE)), (B, Accept), (B, Send(8_000_000, WHOLE)), (B, Fin),
            (B, Expect(H, WHOLE)), (C, Send(100, 100)), (B, Expect(100, 100)), (C, Await),
            (C, Expect(8_000_000, WHOLE)), (C, Eof), (C, Fin), (B, Eof),
        ],
    ),
    row(
        "paused_backend_goes_on",
        COMPLETED,
        &[
            (C, Connect), (C, Send(8_000_000, WHOLE)), (C, Fin), (B, Accept), (B, Await),
            (B, Send(100, 100)), (C, Expect(100, 100)), (B, Expect(8_000_000, WHOLE)), (B, Eof),
            (B, Fin), (C, Eof),
        ],
    ),
    row(
        "slow_reader_with_a_small_buffer",
        COMPLETED,
        &[
            (C, ConnectSmall), (C, Send(H, WHOLE)), (B, Accept), (B, Expect(H, WHOLE)),
            (B, Send(300_000, WHOLE)), (B, Fin), (C, Expect(300_000, 100)), (C, Eof), (C, Fin),
            (B, Eof),
        ],
    ),
    // Resets.
    row(
        "client_resets_before_a_byte",
        CLIENT_RESET,
        &[
            (C, Connect), (C, Reset),
        ],
    )
    .not_in_kernel(DEFERRED),
    row(
        "client_resets_inside_the_frame",
        CLIENT_RESET,
        &[
            (C, Connect), (C, Send(3, 3)), (C, Reset),
        ],
    ),
    row(
        "client_resets_while_relayed",
        CLIENT_RESET,
        &[
            (C, Connect), (C, Send(H, WHOLE)), (B, Accept), (B, Expect(H, WHOLE)), (C, Reset),
            (B, Cut),
        ],
    ),
    row(
        "client_resets_behind_its_data",
        CLIENT_RESET,
        &[
            (C, Connect), (C, Send(50_000, WHOLE)), (B, Accept), (B, Await), (C, Reset),
            (B, Expect(50_000, WHOLE)), (B, Cut),
        ],
    ),
    row(
        "client_resets_after_its_fin",
        CLIENT_RESET,
        &[
            (C, Connect), (C, Send(H, WHOLE)), (C, Fin), (B, Accept), (B, Expect(H, WHOLE)),
            (B, Eof), (C, Reset), (B, End),
        ],
    ),
    row(
        "backend_resets_at_once",
        &["backend-reset", "connect-failed"],
        &[
            (C, Connect), (C, Send(H, WHOLE)), (B, Accept), (B, Reset), (C, End),
        ],
    ),
    row(
        "backend_resets_while_relayed",
        BACKEND_RESET,
        &[
            (C, Connect), (C, Send(H, WHOLE)), (B, Accept), (B, Expect(H, WHOLE)),
            (B, Send(10, 10)), (C, Expect(10, 10)), (B, Reset), (C, Cut),
        ],
    ),
    row(
        "backend_resets_after_its_fin",
        BACKEND_RESET,
        &[
            (C, Connect), (C, Send(H, WHOLE)), (B, Accept), (B, Expect(H, WHOLE)), (B, Fin),
            (C, Eof), (B, Reset), (C, End),
        ],
    ),
    row(
        "backend_resets_behind_a_paused_client",
        BACKEND_RESET,
        &[
            (C, Connect), (C, Send(H, WHOLE)), (B, Accept), (B, Expect(H, WHOLE)),
            (B, Send(50_000, WHOLE)), (C, Await), (B, Reset), (C, Expect(50_000, WHOLE)), (C, Cut),
        ],
    ),
    row(
        "both_reset",
        &["client-reset", "backend-reset"],
        &[
            (C, Connect), (C, Send(H, WHOLE)), (B, Accept), (B, Expect(H, WHOLE)), (C, Reset),
            (B, Reset),
        ],
    ),
    row(
        "client_closes_with_data_unread",
        CLIENT_RESET,
        &[
            (C, Connect), (C, Send(H, WHOLE)), (B, Accept), (B, Expect(H, WHOLE)),
            (B, Send(10, 10)), (C, Await), (C, Close), (B, Cut),
        ],
    ),
    row(
        "backend_closes_with_data_unread",
        BACKEND_RESET,
        &[
            (C, Connect), (C, Send(H, WHOLE)), (B, Accept), (B, Expect(H, WHOLE)),
            (C, Send(10, 10)), (B, Await), (B, Close), (C, Cut),
        ],
    ),
    row(
        "backend_closes_at_once",
        &["backend-reset", "connect-failed"],
        &[
            (C, Connect), (C, Send(H, WHOLE)), (B, Accept), (B, Close), (C, End),
        ],
    ),
    row(
        "backend_answers_a_client_that_has_closed",
        CLIENT_RESET,
        &[
            (C, Connect), (C, Send(H, WHOLE)), (B, Accept), (B, Expect(H, WHOLE)), (C, Close),
            (B, Eof), (B, Send(10, 10)), (B, End),
        ],
    ),
    // The preread.
    row(
        "client_leaves_silently",
        &["client-left"],
        &[
            (C, Connect), (C, Fin), (C, Eof),
        ],
    ),
    row(
        "fin_inside_the_frame",
        &["rejected"],
        &[
            (C, Connect), (C, Send(H - 1, WHOLE)), (C, Fin), (C, Eof),
        ],
    ),
    row(
        "garbage_before_the_frame",
        COMPLETED,
        &[
            (C, Connect), (C, Garbage(10)), (C, Send(H + 5, WHOLE)), (C, Fin), (B, Accept),
            (B, Expect(H + 5, WHOLE)), (B, Eof), (B, Fin), (C, Eof),
        ],
    ),
    row(
        "nothing_but_garbage",
        &["preread-limit"],
        &[
            (C, Connect), (C, Garbage(PREREAD_LIMIT)), (C, Eof),
        ],
    ),
    // Backends that are not there.
    row(
        "backend_refuses",
        &["connect-failed"],
        &[
            (C, Connect), (C, Send(H, WHOLE)), (C, Eof),
        ],
    )
    .at(Backend::Refuses),
    row(
        "backend_hangs",
        &["connect-failed"],
        &[
            (C, Connect), (C, Send(H, WHOLE)), (C, Eof),
        ],
    )
    .at(Backend::Hangs),
    row(
        "client_resets_while_connecting",
        CLIENT_RESET,
        &[
            (C, Connect), (C, Send(H, WHOLE)), (C, Reset),
        ],
    )
    .at(Backend::Hangs),
    // Urgent data.
    row(
        "urgent_data_from_the_client",
        COMPLETED,
        &[
            (C, Connect), (C, Send(H, WHOLE)), (B, Accept), (B, Expect(H, WHOLE)),
            (C, Send(10, 10)), (C, Urgent), (C, Send(10, 10)), (C, Fin), (B, Expect(21, WHOLE)),
            (B, Eof), (B, Fin), (C, Eof),
        ],
    )
    .not_in_turmoil(URGENT),
    row(
        "urgent_data_from_the_backend",
        COMPLETED,
        &[
            (C, Connect), (C, Send(H, WHOLE)), (B, Accept), (B, Expect(H, WHOLE)), (B, Urgent),
            (B, Send(100_000, WHOLE)), (B, Fin), (C, Expect(100_001, WHOLE)), (C, Eof), (C, Fin),
            (B, Eof),
        ],
    )
    .not_in_turmoil(URGENT),
];
