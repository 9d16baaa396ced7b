//! Frames of the two hooks as the pipeline sees them.

use core::{arch::asm, mem::size_of};

use aya_ebpf::{
    bindings::{BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR},
    helpers::generated::{
        bpf_l4_csum_replace, bpf_skb_change_head, bpf_skb_change_tail, bpf_skb_pull_data,
        bpf_xdp_adjust_head, bpf_xdp_adjust_tail,
    },
    programs::{TcContext, XdpContext},
};
use gateway_common::{
    datapath::{Outside, Packet, patched_l4, touched},
    pod::Pod,
};

/// Bytes that hold every header the pipeline touches: Ethernet, IPv4 with all options, TCP up to
/// its checksum.
const HEADERS: u32 = 14 + 60 + 18;

/// The directly accessible bytes of a frame. Every access is checked against `end`: the verifier
/// wants the check beside the access, and it is cheap.
struct View {
    start: usize,
    end: usize,
}

impl View {
    #[inline(always)]
    fn load<T: Pod>(&self, at: usize) -> Result<T, Outside> {
        let from = self.start + at;
        if from + size_of::<T>() > self.end {
            return Err(Outside);
        }
        // SAFETY: the bytes are inside the frame by the check above, and a `Pod` takes any pattern.
        Ok(unsafe { (from as *const T).read_unaligned() })
    }

    #[inline(always)]
    fn store<T: Pod>(&mut self, at: usize, value: T) -> Result<(), Outside> {
        let from = self.start + at;
        if from + size_of::<T>() > self.end {
            return Err(Outside);
        }
        // SAFETY: inside the frame by the check above; the frame is ours while the program runs.
        unsafe { (from as *mut T).write_unaligned(value) };
        Ok(())
    }

    /// VERIFIER (all kernels): a check of one variable offset proves nothing about another, but the
    /// compiler drops a check that an earlier, larger one implies. An end it cannot see through
    /// keeps every check. Drop when programs load without it.
    #[inline(always)]
    fn opaque(&self) -> Self {
        let mut end = self.end;
        // SAFETY: copies a register onto itself (an empty template would leave line information
        // without an instruction, which the kernel refuses); not `pure`, so never merged.
        unsafe { asm!("{0} = {0}", inout(reg) end, options(nomem, nostack, preserves_flags)) };
        Self {
            start: self.start,
            end,
        }
    }
}

/// VERIFIER (all kernels): of an offset that is the sum of several, the compiler computes one sum for
/// the check and another for the access, and the check of one proves nothing about the other. A copy it
/// cannot see through makes it use one. Drop when programs load without it.
#[inline(always)]
fn firm(mut at: usize) -> usize {
    // SAFETY: as in `View::opaque`.
    unsafe { asm!("{0} = {0}", inout(reg) at, options(nomem, nostack, preserves_flags)) };
    at
}

/// Accesses by the view, the same for both hooks.
macro_rules! access {
    () => {
        /// Takes the pointers anew, also after a helper that may have moved the frame.
        #[inline(always)]
        fn look(&mut self) {
            self.view = View {
                start: self.ctx.data(),
                end: self.ctx.data_end(),
            };
        }

        #[inline(always)]
        fn ifindex(&self) -> u32 {
            self.ifindex
        }

        #[inline(always)]
        fn load<T: Pod>(&self, at: usize) -> Result<T, Outside> {
            self.view.load(at)
        }

        #[inline(always)]
        fn store<T: Pod>(&mut self, at: usize, value: T) -> Result<(), Outside> {
            self.view.store(at, value)
        }

        #[inline(always)]
        fn load_l4<T: Pod>(&self, at: usize) -> Result<T, Outside> {
            self.view.opaque().load(at)
        }

        #[inline(always)]
        fn store_l4<T: Pod>(&mut self, at: usize, value: T) -> Result<(), Outside> {
            self.view.opaque().store(at, value)
        }

        #[inline(always)]
        fn load_far<T: Pod>(&self, at: usize) -> Result<T, Outside> {
            let View { start, end } = self.view.opaque();
            let start = firm(start + firm(at));
            View { start, end }.load(0)
        }

        #[inline(always)]
        fn store_far<T: Pod>(&mut self, at: usize, value: T) -> Result<(), Outside> {
            let View { start, end } = self.view.opaque();
            let start = firm(start + firm(at));
            View { start, end }.store(0, value)
        }
    };
}

/// A frame at XDP.
pub struct XdpPacket<'a> {
    ctx: &'a XdpContext,
    view: View,
    ifindex: u32,
}

impl<'a> XdpPacket<'a> {
    #[inline(always)]
    pub fn new(ctx: &'a XdpContext) -> Self {
        let view = View {
            start: ctx.data(),
            end: ctx.data_end(),
        };
        Self {
            ctx,
            view,
            ifindex: ctx.ingress_ifindex() as u32,
        }
    }
}

impl Packet for XdpPacket<'_> {
    #[inline(always)]
    fn frame_len(&self) -> u32 {
        (self.view.end - self.view.start) as u32
    }

    #[inline(always)]
    fn segment(&self) -> u32 {
        0
    }

    #[inline(always)]
    fn make_room(&mut self, front: usize, len: usize) -> Result<(), Outside> {
        let before = self.view.end - self.view.start;
        let ctx = self.ctx.ctx;
        // SAFETY: valid context; pointers are taken anew below.
        let failed = unsafe {
            bpf_xdp_adjust_head(ctx, -(front as i32)) != 0
                || bpf_xdp_adjust_tail(ctx, len as i32 - (before + front) as i32) != 0
        };
        self.look();
        if failed { Err(Outside) } else { Ok(()) }
    }

    #[inline(always)]
    fn patch_l4(&mut self, at: usize, addrs: u16, ports: u16, udp: bool) -> Result<(), Outside> {
        let check = self.load_l4(at)?;
        self.store_l4(at, patched_l4(check, addrs, ports, udp))
    }

    access!();
}

/// A socket buffer at TC.
pub struct TcPacket<'a> {
    ctx: &'a TcContext,
    view: View,
    len: u32,
    segment: u32,
    ifindex: u32,
}

impl<'a> TcPacket<'a> {
    #[inline(always)]
    pub fn new(ctx: &'a TcContext) -> Self {
        let skb = ctx.skb.skb;
        // SAFETY: the kernel hands a valid context; these fields are readable.
        let (len, gso_size, ifindex) = unsafe { ((*skb).len, (*skb).gso_size, (*skb).ifindex) };
        let view = View {
            start: ctx.data(),
            end: ctx.data_end(),
        };
        let mut packet = Self {
            ctx,
            view,
            len,
            segment: gso_size,
            ifindex,
        };
        if ctx.data() + HEADERS as usize > ctx.data_end() {
            packet.lengthen();
        }
        // Whether it was long or not: pointers of one kind are one state for the verifier.
        packet.look();
        packet
    }
}

impl TcPacket<'_> {
    /// Makes the headers accessible where they are not.
    #[inline(never)]
    fn lengthen(&mut self) {
        let needed = touched(self).unwrap_or(HEADERS);
        let wanted = if self.len < needed { self.len } else { needed };
        if self.view.start + wanted as usize > self.view.end {
            self.reach(wanted);
        }
    }
}

impl Packet for TcPacket<'_> {
    #[inline(always)]
    fn frame_len(&self) -> u32 {
        self.len
    }

    #[inline(always)]
    fn segment(&self) -> u32 {
        self.segment
    }

    #[inline(always)]
    fn reach(&mut self, bytes: u32) {
        let wanted = if self.len < bytes { self.len } else { bytes };
        // SAFETY: valid context; pointers are taken anew. A failed pull leaves the head short.
        unsafe { bpf_skb_pull_data(self.ctx.skb.skb, wanted) };
        self.look();
    }

    /// The helper leaves a field alone that the card completes, if ports are all that changed.
    #[inline(always)]
    fn pending(&mut self, at: usize) -> Result<Option<u16>, Outside> {
        let old: u16 = self.load_l4(at)?;
        // SAFETY: valid context; pointers are taken anew below.
        let failed = unsafe { bpf_l4_csum_replace(self.ctx.skb.skb, at as u32, 0, 1, 0) } != 0;
        self.look();
        let new: u16 = self.load_l4(at)?;
        self.store_l4(at, old)?;
        match failed {
            true => Err(Outside),
            false => Ok(if new == old { Some(old) } else { None }),
        }
    }

    #[inline(always)]
    fn make_room(&mut self, front: usize, len: usize) -> Result<(), Outside> {
        let skb = self.ctx.skb.skb;
        // The tail first: that also makes an ordinary packet of a super-packet.
        // SAFETY: valid context; pointers are taken anew below.
        let failed = unsafe {
            bpf_skb_change_tail(skb, (len - front) as u32, 0) != 0
                || bpf_skb_change_head(skb, front as u32, 0) != 0
        };
        self.len = len as u32;
        self.reach(len as u32);
        if failed { Err(Outside) } else { Ok(()) }
    }

    /// The helper knows whether the field holds a whole checksum or only the pseudo header's part,
    /// to which the card adds the rest: ports count in the first case alone.
    #[inline(always)]
    fn patch_l4(&mut self, at: usize, addrs: u16, ports: u16, udp: bool) -> Result<(), Outside> {
        let mangled = if udp { BPF_F_MARK_MANGLED_0 as u64 } else { 0 };
        let skb = self.ctx.skb.skb;
        // SAFETY: valid context; size 0 takes `to` as a difference. No pointer into the packet is
        // used after this.
        let failed = unsafe {
            let flags = mangled | BPF_F_PSEUDO_HDR as u64;
            bpf_l4_csum_replace(skb, at as u32, 0, addrs as u64, flags) != 0
                || bpf_l4_csum_replace(skb, at as u32, 0, ports as u64, mangled) != 0
        };
        if failed { Err(Outside) } else { Ok(()) }
    }

    access!();
}
