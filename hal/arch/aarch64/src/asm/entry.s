// Boot header, entry of the first core (from the loader) and of the others (from PSCI).
// Nothing but this file runs with the MMU off. Registers that must survive: x19.
// Linux Documentation/arch/arm64/booting.rst; Arm ARM (DDI 0487) D13, D8.

.section .text.head, "ax"
.global image_head
image_head:
    b       first_entry
    .long   0
    .quad   TEXT_OFFSET
    .quad   __image_bytes
    .quad   0x2                     // little-endian, 4 KiB pages, near the start of DRAM
    .quad   0, 0, 0
    .ascii  "ARM\x64"
    .long   0

// The first core. x0: physical address of the device tree.
first_entry:
    mov     x19, x0
    bl      drop_to_el1
    // The image's, the tree's and the early console's GiB, so that the code after the MMU is on can run and
    // read. The stores go past the caches, which are off; stale lines of the table are dropped afterwards.
    adrp    x1, boot_level1
    add     x1, x1, :lo12:boot_level1
    ldr     x2, =BLOCK_NORMAL
    ldr     x3, =BLOCK_DEVICE
    ldr     x4, =EARLY_CONSOLE
    cbz     x4, 1f
    lsr     x4, x4, #30
    orr     x5, x3, x4, lsl #30
    str     x5, [x1, x4, lsl #3]
1:  adrp    x4, image_head
    lsr     x4, x4, #30
    orr     x5, x2, x4, lsl #30
    str     x5, [x1, x4, lsl #3]
    ubfx    x4, x19, #30, #9
    orr     x5, x2, x4, lsl #30
    str     x5, [x1, x4, lsl #3]
    mov     x6, #0x200000
    add     x4, x19, x6
    ubfx    x4, x4, #30, #9
    orr     x5, x2, x4, lsl #30
    str     x5, [x1, x4, lsl #3]
    dmb     sy
    mov     x4, #4096
2:  subs    x4, x4, #16
    add     x5, x1, x4
    dc      ivac, x5
    b.ne    2b
    dsb     sy
    adrp    x0, boot_level0
    bl      enable_mmu

    adrp    x0, __bss_start
    adrp    x1, __bss_end
3:  cmp     x0, x1
    b.hs    4f
    stp     xzr, xzr, [x0], #16
    b       3b
4:  mov     x0, #0
    bl      set_stacks
    mov     x0, x19
    mov     x29, xzr
    mov     x30, xzr
    b       first_core

// Any other core. x0: physical address of its start record: { table root, core index }.
.global other_entry
other_entry:
    mov     x19, x0
    bl      drop_to_el1
    ldr     x0, [x19]
    bl      enable_mmu
    ldr     x0, [x19, #8]
    mov     x19, x0
    bl      set_stacks
    mov     x0, x19
    mov     x29, xzr
    mov     x30, xzr
    b       other_core

// Exceptions take SP_EL1, all else runs on SP_EL0: a stack that ran over can still be reported.
// x0: core index.
set_stacks:
    ldr     x1, =STACK_BLOCK_BYTES
    adrp    x2, __stacks_start
    madd    x2, x0, x1, x2
    ldr     x3, =STACK_BLOCK_EXCEPTION_END
    add     x3, x2, x3
    add     x2, x2, x1
    msr     SPSel, #1
    mov     sp, x3
    msr     SPSel, #0
    mov     sp, x2
    adrp    x3, vectors
    add     x3, x3, :lo12:vectors
    msr     vbar_el1, x3
    msr     tpidr_el1, x0
    isb
    ret

// x0: value for TTBR0_EL1.
enable_mmu:
    ldr     x1, =MAIR_VALUE
    msr     mair_el1, x1
    ldr     x1, =TCR_VALUE
    mrs     x2, id_aa64mmfr0_el1
    and     x2, x2, #0xf
    mov     x3, #5                  // 48 bits are the most without LPA
    cmp     x2, x3
    csel    x2, x2, x3, lo
    bfi     x1, x2, #32, #3
    msr     tcr_el1, x1
    msr     ttbr0_el1, x0
    mov     x1, #(3 << 20)          // floating point and vectors do not trap
    msr     cpacr_el1, x1
    tlbi    vmalle1
    dsb     nsh
    ic      iallu
    dsb     nsh
    isb
    ldr     x1, =SCTLR_MMU_ON
    msr     sctlr_el1, x1
    isb
    ret

// From EL2 or EL1 to EL1 with the MMU off; returns to the caller.
drop_to_el1:
    msr     DAIFSet, #0xf
    ldr     x2, =SCTLR_MMU_OFF
    mrs     x1, CurrentEL
    cmp     x1, #(1 << 2)
    b.eq    5f
    mov     x1, #(1 << 31)          // RW: EL1 is AArch64. E2H is cleared where it can be.
    msr     hcr_el2, x1
    isb
    mrs     x1, hcr_el2
    tbnz    x1, #34, 1f
    msr     sctlr_el1, x2
    mov     x3, #0x33ff             // no traps of floating point
    b       2f
1:  msr     s3_5_c1_c0_0, x2        // SCTLR_EL12
    mov     x3, #(3 << 20)          // CPTR_EL2 has CPACR's layout under E2H
2:  msr     cptr_el2, x3
    mov     x3, #0xc03              // counter and timer of EL1 do not trap, in either layout
    msr     cnthctl_el2, x3
    msr     cntvoff_el2, xzr
    msr     vttbr_el2, xzr
    msr     hstr_el2, xzr
    mrs     x3, id_aa64mmfr0_el1    // traps of later extensions are unknown after a reset: none
    ubfx    x3, x3, #56, #4         // FGT
    cbz     x3, 6f
    msr     s3_4_c1_c1_4, xzr       // HFGRTR_EL2
    msr     s3_4_c1_c1_5, xzr       // HFGWTR_EL2
    msr     s3_4_c1_c1_6, xzr       // HFGITR_EL2
    msr     s3_4_c3_c1_4, xzr       // HDFGRTR_EL2
    msr     s3_4_c3_c1_5, xzr       // HDFGWTR_EL2
6:  mrs     x3, id_aa64mmfr1_el1
    ubfx    x3, x3, #40, #4         // HCX
    cbz     x3, 7f
    msr     s3_4_c1_c2_2, xzr       // HCRX_EL2
7:  mrs     x3, midr_el1
    msr     vpidr_el2, x3
    mrs     x3, mpidr_el1
    msr     vmpidr_el2, x3
    mrs     x3, id_aa64dfr0_el1
    ubfx    x3, x3, #8, #4          // PMUVer
    sub     x4, x3, #1
    mov     x3, xzr
    cmp     x4, #0xe
    b.hs    3f
    mrs     x3, pmcr_el0
    ubfx    x3, x3, #11, #5         // all counters are EL1's
3:  msr     mdcr_el2, x3
    mrs     x3, id_aa64pfr0_el1
    ubfx    x3, x3, #24, #4         // GIC system registers
    cbz     x3, 4f
    mrs     x3, s3_4_c12_c9_5       // ICC_SRE_EL2
    orr     x3, x3, #0x1
    orr     x3, x3, #0x8
    msr     s3_4_c12_c9_5, x3
    isb
    mrs     x3, s3_4_c12_c9_5
    tbz     x3, #0, 4f
    msr     s3_4_c12_c11_0, xzr     // ICH_HCR_EL2
4:  mov     x3, #0x3c5              // EL1 on SP_EL1, all masked
    msr     spsr_el2, x3
    msr     elr_el2, x30
    eret
5:  msr     sctlr_el1, x2
    isb
    ret

.section .data.boot_tables, "aw"
.balign 4096
boot_level0:
    .quad   boot_level1 + 3
    .fill   511, 8, 0
.balign 4096
boot_level1:
    .fill   512, 8, 0
