//! By which interface an address is reached (rtnetlink(7)).

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::libc;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket,
};

/// Sizes of `struct nlmsghdr`, `struct rtmsg` and `struct rtattr`.
const HEADER: usize = 16;
const ROUTE: usize = 12;
const ATTRIBUTE: usize = 4;

/// Asks the kernel's routing table.
#[derive(Debug)]
pub(super) struct Routes(OwnedFd);

impl Routes {
    /// # Errors
    /// The host has no descriptor left.
    pub(super) fn new() -> io::Result<Self> {
        let socket = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkRoute,
        )?;
        Ok(Self(socket))
    }

    /// Number of the interface that leads to `to`; 0: it is this host. `None`: nothing leads there.
    pub(super) fn interface(&self, to: IpAddr) -> Option<u32> {
        send(self.0.as_raw_fd(), &question(to), MsgFlags::empty()).ok()?;
        let mut answer = [0; 1024];
        let length = recv(self.0.as_raw_fd(), &mut answer, MsgFlags::empty()).ok()?;
        interface(&answer[..length])
    }
}

fn question(to: IpAddr) -> Vec<u8> {
    let (family, address) = match to {
        IpAddr::V4(ip) => (libc::AF_INET, ip.octets().to_vec()),
        IpAddr::V6(ip) => (libc::AF_INET6, ip.octets().to_vec()),
    };
    let attribute = ATTRIBUTE + address.len();
    let length = HEADER + ROUTE + attribute;
    let mut question = Vec::with_capacity(length);
    question.extend((length as u32).to_ne_bytes());
    question.extend(libc::RTM_GETROUTE.to_ne_bytes());
    question.extend((libc::NLM_F_REQUEST as u16).to_ne_bytes());
    question.extend([0; 8]);
    question.extend([family as u8, address.len() as u8 * 8]);
    question.extend([0; ROUTE - 2]);
    question.extend((attribute as u16).to_ne_bytes());
    question.extend(libc::RTA_DST.to_ne_bytes());
    question.extend(address);
    question
}

fn interface(answer: &[u8]) -> Option<u32> {
    let kind = u16::from_ne_bytes(*answer.get(4..)?.first_chunk()?);
    let route = answer.get(HEADER..HEADER + ROUTE)?;
    if kind != libc::RTM_NEWROUTE {
        return None;
    }
    match route[7] {
        libc::RTN_LOCAL => return Some(0),
        libc::RTN_UNICAST => {}
        _ => return None,
    }
    let mut rest = answer.get(HEADER + ROUTE..)?;
    loop {
        let length = u16::from_ne_bytes(*rest.first_chunk()?) as usize;
        let kind = u16::from_ne_bytes(*rest.get(2..)?.first_chunk()?);
        if kind == libc::RTA_OIF {
            return Some(u32::from_ne_bytes(*rest.get(ATTRIBUTE..)?.first_chunk()?));
        }
        rest = rest.get(length.max(ATTRIBUTE).next_multiple_of(4)..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_host_is_reached_by_no_interface() {
        let routes = Routes::new().unwrap();
        for local in ["127.0.0.1", "127.3.2.1", "::1"] {
            assert_eq!(routes.interface(local.parse().unwrap()), Some(0));
        }
        assert_eq!(routes.interface("255.255.255.255".parse().unwrap()), None);
    }

    #[test]
    fn an_answer_that_is_cut_tells_nothing() {
        let mut answer = vec![0; HEADER + ROUTE];
        answer[4] = libc::RTM_NEWROUTE as u8;
        answer[HEADER + 7] = libc::RTN_UNICAST;
        answer.extend([8, 0, libc::RTA_OIF as u8, 0, 3, 0, 0, 0]);
        assert_eq!(interface(&answer), Some(3));
        for length in 0..answer.len() {
            assert_eq!(interface(&answer[..length]), None);
        }
    }
}
