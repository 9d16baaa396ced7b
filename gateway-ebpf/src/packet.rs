//! Frames of the two hooks as the pipeline sees them.

use core::{arch::asm, mem::size_of};

use aya_ebpf::{
    bindings::{BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR},
    helpers::generated::{bpf_l4_csum_replace, bpf_skb_pull_data},
    programs::{TcContext, XdpContext},
};
use gateway_common::{
    datapath::{Outside, Packet, patched_l4},
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

/// Accesses by the view, the same for both hooks.
macro_rules! access {
    () => {
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
    };
}

/// A frame at XDP.
pub struct XdpPacket {
    view: View,
    ifindex: u32,
}

impl XdpPacket {
    #[inline(always)]
    pub fn new(ctx: &XdpContext) -> Self {
        let view = View {
            start: ctx.data(),
            end: ctx.data_end(),
        };
        Self {
            view,
            ifindex: ctx.ingress_ifindex() as u32,
        }
    }
}

impl Packet for XdpPacket {
    #[inline(always)]
    fn frame_len(&self) -> u32 {
        (self.view.end - self.view.start) as u32
    }

    #[inline(always)]
    fn segmented(&self) -> bool {
        false
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
    segmented: bool,
    ifindex: u32,
}

impl<'a> TcPacket<'a> {
    #[inline(always)]
    pub fn new(ctx: &'a TcContext) -> Self {
        let skb = ctx.skb.skb;
        // SAFETY: the kernel hands a valid context; these fields are readable.
        let (len, gso_size, ifindex) = unsafe { ((*skb).len, (*skb).gso_size, (*skb).ifindex) };
        if ctx.data() + HEADERS as usize > ctx.data_end() {
            let wanted = if len < HEADERS { len } else { HEADERS };
            if ctx.data() + wanted as usize > ctx.data_end() {
                // SAFETY: valid context; pointers are taken anew below. A failed pull leaves the
                // head short, and the pipeline then finds its loads outside.
                unsafe { bpf_skb_pull_data(skb, wanted) };
            }
        }
        let view = View {
            start: ctx.data(),
            end: ctx.data_end(),
        };
        Self {
            ctx,
            view,
            len,
            segmented: gso_size != 0,
            ifindex,
        }
    }
}

impl Packet for TcPacket<'_> {
    #[inline(always)]
    fn frame_len(&self) -> u32 {
        self.len
    }

    #[inline(always)]
    fn segmented(&self) -> bool {
        self.segmented
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
