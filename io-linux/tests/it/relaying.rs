//! The scenarios through tlb, for each relay.

mod copy {
    use crate::scenarios;
    use crate::support::site::Through;

    #[test]
    fn one_large_stream() {
        scenarios::one_large_stream(Through::Copy);
    }

    #[test]
    fn echo_in_random_pieces() {
        scenarios::echo_in_random_pieces(Through::Copy);
    }

    #[test]
    fn frame_byte_by_byte() {
        scenarios::frame_byte_by_byte(Through::Copy);
    }

    #[test]
    fn frame_and_more_in_one_segment() {
        scenarios::frame_and_more_in_one_segment(Through::Copy);
    }

    #[test]
    fn large_first_frame() {
        scenarios::large_first_frame(Through::Copy);
    }

    #[test]
    fn three_wait_before_the_first_poll() {
        scenarios::three_wait_before_the_first_poll(Through::Copy);
    }

    #[test]
    fn client_closes_first() {
        scenarios::client_closes_first(Through::Copy);
    }

    #[test]
    fn backend_closes_first() {
        scenarios::backend_closes_first(Through::Copy);
    }

    #[test]
    fn client_resets() {
        scenarios::client_resets(Through::Copy);
    }

    #[test]
    fn backend_resets() {
        scenarios::backend_resets(Through::Copy);
    }

    #[test]
    fn client_resets_behind_a_backlog() {
        scenarios::client_resets_behind_a_backlog(Through::Copy);
    }

    #[test]
    fn backend_resets_behind_a_backlog() {
        scenarios::backend_resets_behind_a_backlog(Through::Copy);
    }

    #[test]
    fn backend_talks_first() {
        scenarios::backend_talks_first(Through::Copy);
    }

    #[test]
    fn paused_client() {
        scenarios::paused_client(Through::Copy);
    }

    #[test]
    fn paused_backend() {
        scenarios::paused_backend(Through::Copy);
    }

    #[test]
    fn urgent_data() {
        scenarios::urgent_data(Through::Copy);
    }

    #[test]
    fn urgent_data_in_the_first_frame() {
        scenarios::urgent_data_in_the_first_frame(Through::Copy);
    }

    #[test]
    fn everything_at_once() {
        scenarios::everything_at_once(Through::Copy);
    }
}

mod splice {
    use crate::scenarios;
    use crate::support::site::Through;

    #[test]
    fn one_large_stream() {
        scenarios::one_large_stream(Through::Splice);
    }

    #[test]
    fn echo_in_random_pieces() {
        scenarios::echo_in_random_pieces(Through::Splice);
    }

    #[test]
    fn frame_byte_by_byte() {
        scenarios::frame_byte_by_byte(Through::Splice);
    }

    #[test]
    fn frame_and_more_in_one_segment() {
        scenarios::frame_and_more_in_one_segment(Through::Splice);
    }

    #[test]
    fn large_first_frame() {
        scenarios::large_first_frame(Through::Splice);
    }

    #[test]
    fn three_wait_before_the_first_poll() {
        scenarios::three_wait_before_the_first_poll(Through::Splice);
    }

    #[test]
    fn client_closes_first() {
        scenarios::client_closes_first(Through::Splice);
    }

    #[test]
    fn backend_closes_first() {
        scenarios::backend_closes_first(Through::Splice);
    }

    #[test]
    fn client_resets() {
        scenarios::client_resets(Through::Splice);
    }

    #[test]
    fn backend_resets() {
        scenarios::backend_resets(Through::Splice);
    }

    #[test]
    fn client_resets_behind_a_backlog() {
        scenarios::client_resets_behind_a_backlog(Through::Splice);
    }

    #[test]
    fn backend_resets_behind_a_backlog() {
        scenarios::backend_resets_behind_a_backlog(Through::Splice);
    }

    #[test]
    fn backend_talks_first() {
        scenarios::backend_talks_first(Through::Splice);
    }

    #[test]
    fn paused_client() {
        scenarios::paused_client(Through::Splice);
    }

    #[test]
    fn paused_backend() {
        scenarios::paused_backend(Through::Splice);
    }

    #[test]
    fn urgent_data() {
        scenarios::urgent_data(Through::Splice);
    }

    #[test]
    fn urgent_data_in_the_first_frame() {
        scenarios::urgent_data_in_the_first_frame(Through::Splice);
    }

    #[test]
    fn everything_at_once() {
        scenarios::everything_at_once(Through::Splice);
    }
}

mod auto {
    use crate::scenarios;
    use crate::support::site::Through;

    #[test]
    fn one_large_stream() {
        scenarios::one_large_stream(Through::Auto);
    }

    #[test]
    fn echo_in_random_pieces() {
        scenarios::echo_in_random_pieces(Through::Auto);
    }

    #[test]
    fn frame_byte_by_byte() {
        scenarios::frame_byte_by_byte(Through::Auto);
    }

    #[test]
    fn frame_and_more_in_one_segment() {
        scenarios::frame_and_more_in_one_segment(Through::Auto);
    }

    #[test]
    fn large_first_frame() {
        scenarios::large_first_frame(Through::Auto);
    }

    #[test]
    fn three_wait_before_the_first_poll() {
        scenarios::three_wait_before_the_first_poll(Through::Auto);
    }

    #[test]
    fn client_closes_first() {
        scenarios::client_closes_first(Through::Auto);
    }

    #[test]
    fn backend_closes_first() {
        scenarios::backend_closes_first(Through::Auto);
    }

    #[test]
    fn client_resets() {
        scenarios::client_resets(Through::Auto);
    }

    #[test]
    fn backend_resets() {
        scenarios::backend_resets(Through::Auto);
    }

    #[test]
    fn client_resets_behind_a_backlog() {
        scenarios::client_resets_behind_a_backlog(Through::Auto);
    }

    #[test]
    fn backend_resets_behind_a_backlog() {
        scenarios::backend_resets_behind_a_backlog(Through::Auto);
    }

    #[test]
    fn backend_talks_first() {
        scenarios::backend_talks_first(Through::Auto);
    }

    #[test]
    fn paused_client() {
        scenarios::paused_client(Through::Auto);
    }

    #[test]
    fn paused_backend() {
        scenarios::paused_backend(Through::Auto);
    }

    #[test]
    fn urgent_data() {
        scenarios::urgent_data(Through::Auto);
    }

    #[test]
    fn urgent_data_in_the_first_frame() {
        scenarios::urgent_data_in_the_first_frame(Through::Auto);
    }

    #[test]
    fn everything_at_once() {
        scenarios::everything_at_once(Through::Auto);
    }
}

/// Handed off as soon as that may be, where the kernel and the user allow it.
mod kernel {
    use crate::scenarios;
    use crate::support::kernel::hands_off;
    use crate::support::site::Through;

    #[test]
    fn one_large_stream() {
        if hands_off() {
            scenarios::one_large_stream(Through::Kernel);
        }
    }

    #[test]
    fn echo_in_random_pieces() {
        if hands_off() {
            scenarios::echo_in_random_pieces(Through::Kernel);
        }
    }

    #[test]
    fn frame_byte_by_byte() {
        if hands_off() {
            scenarios::frame_byte_by_byte(Through::Kernel);
        }
    }

    #[test]
    fn frame_and_more_in_one_segment() {
        if hands_off() {
            scenarios::frame_and_more_in_one_segment(Through::Kernel);
        }
    }

    #[test]
    fn large_first_frame() {
        if hands_off() {
            scenarios::large_first_frame(Through::Kernel);
        }
    }

    #[test]
    fn three_wait_before_the_first_poll() {
        if hands_off() {
            scenarios::three_wait_before_the_first_poll(Through::Kernel);
        }
    }

    #[test]
    fn client_closes_first() {
        if hands_off() {
            scenarios::client_closes_first(Through::Kernel);
        }
    }

    #[test]
    fn backend_closes_first() {
        if hands_off() {
            scenarios::backend_closes_first(Through::Kernel);
        }
    }

    #[test]
    fn client_resets() {
        if hands_off() {
            scenarios::client_resets(Through::Kernel);
        }
    }

    #[test]
    fn backend_resets() {
        if hands_off() {
            scenarios::backend_resets(Through::Kernel);
        }
    }

    #[test]
    fn client_resets_behind_a_backlog() {
        if hands_off() {
            scenarios::client_resets_behind_a_backlog(Through::Kernel);
        }
    }

    #[test]
    fn backend_resets_behind_a_backlog() {
        if hands_off() {
            scenarios::backend_resets_behind_a_backlog(Through::Kernel);
        }
    }

    #[test]
    fn backend_talks_first() {
        if hands_off() {
            scenarios::backend_talks_first(Through::Kernel);
        }
    }

    #[test]
    fn paused_client() {
        if hands_off() {
            scenarios::paused_client(Through::Kernel);
        }
    }

    #[test]
    fn paused_backend() {
        if hands_off() {
            scenarios::paused_backend(Through::Kernel);
        }
    }

    #[test]
    fn urgent_data() {
        if hands_off() {
            scenarios::urgent_data(Through::Kernel);
        }
    }

    #[test]
    fn urgent_data_in_the_first_frame() {
        if hands_off() {
            scenarios::urgent_data_in_the_first_frame(Through::Kernel);
        }
    }

    #[test]
    fn everything_at_once() {
        if hands_off() {
            scenarios::everything_at_once(Through::Kernel);
        }
    }
}
