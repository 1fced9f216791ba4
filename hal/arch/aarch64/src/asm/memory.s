// memcpy, memmove, memset, memcmp and bcmp. Memory is Normal and unaligned accesses are legal, so nothing is
// aligned first: sizes up to 128 are done with overlapping loads from both ends, all loaded before anything
// is stored, so that they serve memmove too. 4 KiB take 64 rounds of 6 instructions at any alignment.

.section .text.memory, "ax"

// x0 destination (returned), x1 source, x2 bytes.
.balign 64
.global memmove
.type memmove, %function
memmove:
    cmp     x2, #128
    b.ls    copy_small
    sub     x3, x0, x1
    cmp     x3, x2                  // unsigned: the destination starts inside the source
    b.lo    copy_backwards
    b       copy_forwards
.size memmove, . - memmove

.balign 64
.global memcpy
.type memcpy, %function
memcpy:
    cmp     x2, #128
    b.hi    copy_forwards
copy_small:
    add     x4, x1, x2              // ends
    add     x5, x0, x2
    cmp     x2, #16
    b.lo    3f
    cmp     x2, #32
    b.hi    1f
    ldr     q0, [x1]
    ldr     q1, [x4, #-16]
    str     q0, [x0]
    str     q1, [x5, #-16]
    ret
1:  cmp     x2, #64
    b.hi    2f
    ldp     q0, q1, [x1]
    ldp     q2, q3, [x4, #-32]
    stp     q0, q1, [x0]
    stp     q2, q3, [x5, #-32]
    ret
2:  ldp     q0, q1, [x1]
    ldp     q2, q3, [x1, #32]
    ldp     q4, q5, [x4, #-64]
    ldp     q6, q7, [x4, #-32]
    stp     q0, q1, [x0]
    stp     q2, q3, [x0, #32]
    stp     q4, q5, [x5, #-64]
    stp     q6, q7, [x5, #-32]
    ret
3:  tbz     x2, #3, 4f
    ldr     x6, [x1]
    ldr     x7, [x4, #-8]
    str     x6, [x0]
    str     x7, [x5, #-8]
    ret
4:  tbz     x2, #2, 5f
    ldr     w6, [x1]
    ldr     w7, [x4, #-4]
    str     w6, [x0]
    str     w7, [x5, #-4]
    ret
5:  cbz     x2, 6f
    lsr     x8, x2, #1              // 1 to 3 bytes: first, middle, last
    ldrb    w6, [x1]
    ldrb    w7, [x4, #-1]
    ldrb    w9, [x1, x8]
    strb    w6, [x0]
    strb    w9, [x0, x8]
    strb    w7, [x5, #-1]
6:  ret

// More than 128 bytes, the destination not inside the source after its start. The last 64 bytes are loaded
// first and stored last, so that an overlap downwards does no harm.
copy_forwards:
    add     x4, x1, x2
    add     x5, x0, x2
    ldp     q16, q17, [x4, #-64]
    ldp     q18, q19, [x4, #-32]
    mov     x3, x0
    sub     x2, x2, #1
    lsr     x2, x2, #6              // whole rounds that leave 1 to 64 bytes
7:  ldp     q0, q1, [x1], #64
    ldp     q2, q3, [x1, #-32]
    subs    x2, x2, #1
    stp     q0, q1, [x3], #64
    stp     q2, q3, [x3, #-32]
    b.ne    7b
    stp     q16, q17, [x5, #-64]
    stp     q18, q19, [x5, #-32]
    ret

copy_backwards:
    cbz     x3, 9f                  // onto itself
    add     x4, x1, x2
    add     x5, x0, x2
    ldp     q16, q17, [x1]
    ldp     q18, q19, [x1, #32]
    sub     x2, x2, #1
    lsr     x2, x2, #6
8:  ldp     q0, q1, [x4, #-32]
    ldp     q2, q3, [x4, #-64]!
    subs    x2, x2, #1
    stp     q0, q1, [x5, #-32]
    stp     q2, q3, [x5, #-64]!
    b.ne    8b
    stp     q16, q17, [x0]
    stp     q18, q19, [x0, #32]
9:  ret
.size memcpy, . - memcpy

// x0 destination (returned), w1 byte, x2 bytes.
.balign 64
.global memset
.type memset, %function
memset:
    dup     v0.16b, w1
    add     x5, x0, x2
    cmp     x2, #64
    b.hi    3f
    cmp     x2, #16
    b.lo    1f
    str     q0, [x0]
    str     q0, [x5, #-16]
    cmp     x2, #32
    b.ls    2f
    str     q0, [x0, #16]
    str     q0, [x5, #-32]
    ret
1:  umov    x3, v0.d[0]
    tbz     x2, #3, 4f
    str     x3, [x0]
    str     x3, [x5, #-8]
2:  ret
4:  tbz     x2, #2, 5f
    str     w3, [x0]
    str     w3, [x5, #-4]
    ret
5:  cbz     x2, 6f
    lsr     x4, x2, #1
    strb    w3, [x0]
    strb    w3, [x0, x4]
    strb    w3, [x5, #-1]
6:  ret
3:  mov     x3, x0
    sub     x2, x2, #1
    lsr     x2, x2, #6
7:  stp     q0, q0, [x3], #64
    stp     q0, q0, [x3, #-32]
    subs    x2, x2, #1
    b.ne    7b
    stp     q0, q0, [x5, #-64]
    stp     q0, q0, [x5, #-32]
    ret
.size memset, . - memset

// x0, x1 ranges, x2 bytes; below zero, zero or above zero in w0.
.balign 64
.global memcmp
.global bcmp
.type memcmp, %function
.type bcmp, %function
bcmp:
memcmp:
    cmp     x2, #8
    b.lo    3f
    add     x4, x0, x2              // ends
    add     x5, x1, x2
    sub     x2, x2, #1
    lsr     x2, x2, #3              // whole words that leave 1 to 8 bytes
    cbz     x2, 2f
1:  ldr     x6, [x0], #8
    ldr     x7, [x1], #8
    cmp     x6, x7
    b.ne    5f
    subs    x2, x2, #1
    b.ne    1b
2:  ldr     x6, [x4, #-8]
    ldr     x7, [x5, #-8]
    cmp     x6, x7
    b.ne    5f
    mov     w0, #0
    ret
5:  rev     x6, x6                  // the first byte decides
    rev     x7, x7
    cmp     x6, x7
    cset    w0, hi
    csinv   w0, w0, wzr, hs
    ret
3:  cbz     x2, 4f
6:  ldrb    w6, [x0], #1
    ldrb    w7, [x1], #1
    subs    w3, w6, w7
    b.ne    7f
    subs    x2, x2, #1
    b.ne    6b
4:  mov     w0, #0
    ret
7:  mov     w0, w3
    ret
.size memcmp, . - memcmp
