// The exception vectors (Arm ARM D1.4.1). Everything is saved into a frame on the exception stack, whose
// layout is `Frame` in exception.rs.

.macro vector kind, handler
.balign 128
    sub     sp, sp, #(36 * 8)
    stp     x0, x1, [sp]
    mov     x0, #\kind
    b       \handler
.endm

// The stack may be what failed: start it anew before anything is stored. TPIDR_EL0 and TPIDRRO_EL0 are used by nobody
// else.
.macro vector_in_handler
.balign 128
    msr     tpidr_el0, x0
    msr     tpidrro_el0, x1
    b       double_fault
.endm

.section .text.vectors, "ax"
.balign 2048
.global vectors
vectors:
    vector  0, fault                // this level, SP_EL0: where everything runs
    vector  1, interrupt
    vector  2, watch_interrupt
    vector  3, fault
    vector_in_handler               // this level, SP_EL1: in a handler
    vector_in_handler
    vector_in_handler
    vector_in_handler
    vector  8, fault                // lower levels: there are none
    vector  9, fault
    vector  10, fault
    vector  11, fault
    vector  12, fault
    vector  13, fault
    vector  14, fault
    vector  15, fault

.macro save_frame
    stp     x2, x3, [sp, #16]
    stp     x4, x5, [sp, #32]
    stp     x6, x7, [sp, #48]
    stp     x8, x9, [sp, #64]
    stp     x10, x11, [sp, #80]
    stp     x12, x13, [sp, #96]
    stp     x14, x15, [sp, #112]
    stp     x16, x17, [sp, #128]
    stp     x18, x19, [sp, #144]
    stp     x20, x21, [sp, #160]
    stp     x22, x23, [sp, #176]
    stp     x24, x25, [sp, #192]
    stp     x26, x27, [sp, #208]
    stp     x28, x29, [sp, #224]
    mrs     x1, sp_el0
    stp     x30, x1, [sp, #240]
    mrs     x1, elr_el1
    mrs     x2, spsr_el1
    stp     x1, x2, [sp, #256]
    mrs     x1, esr_el1
    mrs     x2, far_el1
    stp     x1, x2, [sp, #272]
.endm

fault:
    save_frame
    mov     x1, sp
    mov     x29, xzr
    bl      report_fault
    b       .

// A fault in a handler: its registers go below the frame of what the handler was called for.
double_fault:
    mrs     x0, tpidr_el1
    ldr     x1, =STACK_BLOCK_BYTES
    mul     x0, x0, x1
    adrp    x1, __stacks_start
    add     x0, x0, x1
    ldr     x1, =STACK_BLOCK_EXCEPTION_END
    add     x0, x0, x1
    sub     x0, x0, #(2 * 36 * 8)
    mov     x1, sp
    mov     sp, x0
    stur    x1, [sp, #-16]          // nothing comes in between: all is masked
    mrs     x0, tpidr_el0
    mrs     x1, tpidrro_el0
    stp     x0, x1, [sp]
    save_frame
    ldur    x1, [sp, #-16]
    str     x1, [sp, #248]          // the stack pointer of the handler
    mov     x0, sp
    mov     x29, xzr
    bl      report_double_fault
    b       .

// Rust may use all registers that a call may change, vectors included.
.macro call_and_return function
    save_frame
    mov     x0, sp
    mov     x29, xzr
    sub     sp, sp, #(32 * 16)
    stp     q0, q1, [sp]
    stp     q2, q3, [sp, #32]
    stp     q4, q5, [sp, #64]
    stp     q6, q7, [sp, #96]
    stp     q8, q9, [sp, #128]
    stp     q10, q11, [sp, #160]
    stp     q12, q13, [sp, #192]
    stp     q14, q15, [sp, #224]
    stp     q16, q17, [sp, #256]
    stp     q18, q19, [sp, #288]
    stp     q20, q21, [sp, #320]
    stp     q22, q23, [sp, #352]
    stp     q24, q25, [sp, #384]
    stp     q26, q27, [sp, #416]
    stp     q28, q29, [sp, #448]
    stp     q30, q31, [sp, #480]
    bl      \function
    ldp     q0, q1, [sp]
    ldp     q2, q3, [sp, #32]
    ldp     q4, q5, [sp, #64]
    ldp     q6, q7, [sp, #96]
    ldp     q8, q9, [sp, #128]
    ldp     q10, q11, [sp, #160]
    ldp     q12, q13, [sp, #192]
    ldp     q14, q15, [sp, #224]
    ldp     q16, q17, [sp, #256]
    ldp     q18, q19, [sp, #288]
    ldp     q20, q21, [sp, #320]
    ldp     q22, q23, [sp, #352]
    ldp     q24, q25, [sp, #384]
    ldp     q26, q27, [sp, #416]
    ldp     q28, q29, [sp, #448]
    ldp     q30, q31, [sp, #480]
    add     sp, sp, #(32 * 16)
    ldp     x1, x2, [sp, #256]
    msr     elr_el1, x1
    msr     spsr_el1, x2
    ldp     x2, x3, [sp, #16]
    ldp     x4, x5, [sp, #32]
    ldp     x6, x7, [sp, #48]
    ldp     x8, x9, [sp, #64]
    ldp     x10, x11, [sp, #80]
    ldp     x12, x13, [sp, #96]
    ldp     x14, x15, [sp, #112]
    ldp     x16, x17, [sp, #128]
    ldr     x18, [sp, #144]
    ldp     x28, x29, [sp, #224]
    ldr     x30, [sp, #240]
    ldp     x0, x1, [sp]
    add     sp, sp, #(36 * 8)
    eret
.endm

interrupt:
    call_and_return acknowledge_interrupts

watch_interrupt:
    call_and_return watch
