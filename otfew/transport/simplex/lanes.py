"""Sixteen whole numbers of 32 bits at a time, for compiled code: what numba's loops over them would not become.

LLVM turns each of these into the widest instructions that a processor has; whole numbers make the answer the same on
all of them. Arrays are int32, one-dimensional and contiguous; a group starts at index ``at`` and has ``LANES`` entries.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

LANES = 16
"""Numbers in a group."""

GROUP = 32
"""Rows that the lowest bits of a key tell apart."""

LOWEST = -(2**30)
"""Below all keys, also when one is added to it."""

_BIT, _I32, _I64 = ir.IntType(1), ir.IntType(32), ir.IntType(64)
_LANES, _BITS = ir.VectorType(_I32, LANES), ir.VectorType(_BIT, LANES)
_WORDS, _DOUBLES = ir.VectorType(_I64, LANES), ir.VectorType(ir.DoubleType(), LANES)


class _Writer:
    """Writes the instructions of one function, whose arguments are numba's."""

    def __init__(self, context: Any, builder: Any, signature: Any, args: Any) -> None:
        self.context, self.builder = context, builder
        self.kinds, self.args = signature.args, args

    def place(self, argument: int, index: Any) -> Any:
        """Address of an entry of an array."""
        array = self.context.make_array(self.kinds[argument])(self.context, self.builder, self.args[argument])
        return self.builder.gep(array.data, [index])

    def load(self, argument: int, index: Any, kind: Any = _LANES) -> Any:
        """Read a group, or what ``kind`` says."""
        place = self.builder.bitcast(self.place(argument, index), kind.as_pointer())
        return self.builder.load(place, align=4 if kind is _LANES else 8)

    def store(self, value: Any, argument: int, index: Any) -> None:
        """Write a group."""
        place = self.builder.bitcast(self.place(argument, index), value.type.as_pointer())
        self.builder.store(value, place, align=4 if value.type == _LANES else 8)

    def splat(self, number: Any, kind: Any = _LANES) -> Any:
        """Put a number, or a constant, into all lanes."""
        if isinstance(number, int | float):
            return ir.Constant(kind, [number] * LANES)
        if number.type == _I64 and kind is _LANES:
            number = self.builder.trunc(number, _I32)
        nothing = ir.Constant(kind, ir.Undefined)
        one = self.builder.insert_element(nothing, number, _I32(0))
        return self.builder.shuffle_vector(one, nothing, ir.Constant(_LANES, [0] * LANES))

    def call(self, name: str, kind: Any, *args: Any) -> Any:
        """Call an operation of LLVM's."""
        of = ir.FunctionType(kind, [arg.type for arg in args])
        return self.builder.call(cgutils.get_or_insert_function(self.builder.module, of, name), args)

    def larger(self, x: Any, y: Any) -> Any:
        """Larger numbers, lane by lane."""
        return self.call("llvm.smax.v16i32", _LANES, x, y)

    def largest(self, x: Any) -> Any:
        """Largest number of a group, int64."""
        return self.builder.sext(self.call("llvm.vector.reduce.smax.v16i32", _I32, x), _I64)

    def bits(self, lanes: Any) -> Any:
        """Truths of a group as bits of an int64."""
        return self.builder.zext(self.builder.bitcast(lanes, ir.IntType(LANES)), _I64)

    def truths(self, bits: Any) -> Any:
        """The lowest bits of an int64 as truths of a group."""
        return self.builder.bitcast(self.builder.trunc(bits, ir.IntType(LANES)), _BITS)

    def below(self, first: Any, end: Any) -> Any:
        """Tell which of the numbers from ``first`` on are below ``end``."""
        left = self.splat(self.builder.sub(end, first))
        return self.builder.icmp_signed("<", ir.Constant(_LANES, list(range(LANES))), left)

    def halved(self, group: Any, combine: Callable[[Any, Any], Any]) -> Any:
        """Combine all lanes of a group, always in the same order."""
        half = LANES // 2
        nothing = ir.Constant(group.type, ir.Undefined)
        while half:
            order = [*range(half, 2 * half), *[0] * (LANES - half)]
            group = combine(group, self.builder.shuffle_vector(group, nothing, ir.Constant(_LANES, order)))
            half //= 2
        return self.builder.extract_element(group, _I32(0))

    def gather(self, argument: int, index: Any) -> Any:
        """Entries of an array at a group of indices."""
        start = self.builder.ptrtoint(self.place(argument, _I64(0)), _I64)
        offset = self.builder.shl(self.builder.zext(index, _WORDS), self.splat(2, _WORDS))
        places = self.builder.inttoptr(
            self.builder.add(self.splat(start, _WORDS), offset), ir.VectorType(_I32.as_pointer(), LANES)
        )
        every, nothing = ir.Constant(_BITS, [1] * LANES), ir.Constant(_LANES, ir.Undefined)
        return self.call("llvm.masked.gather.v16i32.v16p0", _LANES, places, _I32(4), every, nothing)


def _rows(w: _Writer, whole: Any, start: Any, tag: Any, first: Any, last: Any) -> Any:
    """Largest key of rows first..last-1 in each of sixteen columns; their costs lie one group after another."""
    best = cgutils.alloca_once_value(w.builder, w.splat(LOWEST))
    with cgutils.for_range_slice(w.builder, first, last, _I64(1), _I64) as (i, _):
        place = w.builder.add(start, w.builder.mul(i, _I64(LANES)))
        number = w.builder.load(w.place(tag, i))
        key = w.builder.add(w.load(whole, place), w.splat(number))
        w.builder.store(w.larger(w.builder.load(best), key), best)
    return w.builder.load(best)


@intrinsic
def best_rows(
    _context: Any, whole: Any, start: Any, n: Any, tag: Any, v: Any, row: Any, net: Any, excess: Any, at: Any
) -> Any:
    """For each of sixteen columns find the row with the largest key; returns the largest excess.

    A row's key is ``tag`` plus its negative cost in ``whole``, which ends in the row modulo 32 as all costs are
    multiples of 32; the excess is the key plus ``v``. The row, its negative cost and the excess are written.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        w = _Writer(context, builder, signature, args)
        _, start, n, _, _, _, _, _, at = args
        best = cgutils.alloca_once_value(builder, w.splat(LOWEST))
        group = cgutils.alloca_once_value(builder, w.splat(0))
        with cgutils.for_range_slice(builder, _I64(0), n, _I64(GROUP), _I64) as (first, _):
            end = builder.add(first, _I64(GROUP))
            last = builder.select(builder.icmp_signed("<", end, n), end, n)
            key = _rows(w, 0, start, 3, first, last)
            before = builder.load(best)
            up = builder.icmp_signed(">", key, before)
            builder.store(builder.select(up, key, before), best)
            builder.store(builder.select(up, w.splat(first), builder.load(group)), group)
        key = builder.load(best)
        rows = builder.add(builder.and_(key, w.splat(GROUP - 1)), builder.load(group))
        w.store(rows, 5, at)
        w.store(builder.sub(key, w.gather(3, rows)), 6, at)
        above = builder.add(key, w.load(4, at))
        w.store(above, 7, at)
        return w.largest(above)

    return types.int64(whole, types.int64, types.int64, tag, v, row, net, excess, types.int64), generate


@intrinsic
def excess_now(_context: Any, tag: Any, v: Any, row: Any, net: Any, excess: Any, at: Any) -> Any:
    """Write what ``best_rows`` calls the excess for the rows that were found before; returns the largest."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        w = _Writer(context, builder, signature, args)
        at = args[-1]
        key = builder.add(w.gather(0, w.load(2, at)), w.load(3, at))
        above = builder.add(key, w.load(1, at))
        w.store(above, 4, at)
        return w.largest(above)

    return types.int64(tag, v, row, net, excess, types.int64), generate


@intrinsic
def two_best_rows(_context: Any, whole: Any, start: Any, n: Any, bits: Any, best: Any, second: Any, at: Any) -> Any:
    """For each of sixteen columns write the two largest of the negative costs, made longer by ``bits`` at their end.

    A number ends in 32 * 2^bits - 1 less the row.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        w = _Writer(context, builder, signature, args)
        _, start, n, bits, _, _, at = args
        limit = builder.sub(builder.shl(_I64(GROUP), bits), _I64(1))
        longer = w.splat(bits)
        first = cgutils.alloca_once_value(builder, w.splat(LOWEST))
        then = cgutils.alloca_once_value(builder, w.splat(LOWEST))
        with cgutils.for_range(builder, n) as loop:
            place = builder.add(start, builder.mul(loop.index, _I64(LANES)))
            key = builder.add(builder.shl(w.load(0, place), longer), w.splat(builder.sub(limit, loop.index)))
            before = builder.load(first)
            builder.store(w.larger(before, key), first)
            less = builder.select(builder.icmp_signed("<", before, key), before, key)
            builder.store(w.larger(builder.load(then), less), then)
        w.store(builder.load(first), 4, at)
        w.store(builder.load(then), 5, at)
        return context.get_dummy_value()

    return types.void(whole, types.int64, types.int64, types.int64, best, second, types.int64), generate


@intrinsic
def best_open(_context: Any, whole: Any, at: Any, open_bits: Any) -> Any:
    """Largest of sixteen negative costs whose bits are set, with 15 less its lane as the end."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        w = _Writer(context, builder, signature, args)
        lane = ir.Constant(_LANES, list(range(LANES - 1, -1, -1)))
        key = builder.or_(w.load(0, args[1]), lane)
        return w.largest(builder.select(w.truths(args[2]), key, w.splat(LOWEST)))

    return types.int64(whole, types.int64, types.int64), generate


@intrinsic
def excess_after(_context: Any, row: Any, excess: Any, at: Any, moved: Any, columns: Any, shift: Any) -> Any:
    """Do what ``excess_now`` does, after the rows that are bits of ``moved`` rose and ``columns`` fell by a shift."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        w = _Writer(context, builder, signature, args)
        _, _, at, moved, columns, shift = args
        bit = builder.lshr(w.splat(moved, _WORDS), builder.zext(w.load(0, at), _WORDS))
        up, down = builder.trunc(bit, _BITS), w.truths(columns)
        amount, zero = w.splat(shift), w.splat(0)
        above = builder.add(w.load(1, at), builder.select(up, amount, zero))
        above = builder.sub(above, builder.select(down, amount, zero))
        w.store(above, 1, at)
        return w.largest(above)

    integer = types.int64
    return types.int64(row, excess, integer, integer, integer, integer), generate


@intrinsic
def lanes_equal(_context: Any, x: Any, at: Any, number: Any) -> Any:
    """Tell by bits which of a group are a number."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        w = _Writer(context, builder, signature, args)
        return w.bits(builder.icmp_signed("==", w.load(0, args[1]), w.splat(args[2])))

    return types.int64(x, types.int64, types.int64), generate


@intrinsic
def lanes_above(_context: Any, x: Any, at: Any, number: Any) -> Any:
    """Tell by bits which of a group are above a number."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        w = _Writer(context, builder, signature, args)
        return w.bits(builder.icmp_signed(">", w.load(0, args[1]), w.splat(args[2])))

    return types.int64(x, types.int64, types.int64), generate


@intrinsic
def shift_lanes(_context: Any, x: Any, at: Any, bits: Any, amount: Any) -> Any:
    """Add an amount to those of a group whose bits are set."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        w = _Writer(context, builder, signature, args)
        _, at, bits, amount = args
        more = builder.select(w.truths(bits), w.splat(amount), w.splat(0))
        w.store(builder.add(w.load(0, at), more), 0, at)
        return context.get_dummy_value()

    return types.void(x, types.int64, types.int64, types.int64), generate


@intrinsic
def row_sum(_context: Any, cost: Any, start: Any, m: Any) -> Any:
    """Sum of a row of costs; what lies up to a whole group beyond its end is read and left out."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        w = _Writer(context, builder, signature, args)
        _, start, m = args
        total = cgutils.alloca_once_value(builder, w.splat(0.0, _DOUBLES))
        with cgutils.for_range_slice(builder, _I64(0), m, _I64(LANES), _I64) as (at, _):
            kept = builder.select(w.below(at, m), w.load(0, builder.add(start, at), _DOUBLES), w.splat(0.0, _DOUBLES))
            builder.store(builder.fadd(builder.load(total), kept), total)
        return w.halved(builder.load(total), builder.fadd)

    return types.float64(cost, types.int64, types.int64), generate


@intrinsic
def centre_columns(
    _context: Any, given: Any, n: Any, m: Any, mean: Any, cost: Any, width: Any, low: Any, high: Any, column: Any
) -> Any:
    """Take row means off sixteen columns of a cost, and write the least and largest of each.

    Rows of ``given`` follow each other, those of ``cost`` are ``width`` apart. Beyond the last of ``m`` columns all is
    zero.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        w = _Writer(context, builder, signature, args)
        _, n, m, _, _, width, _, _, column = args
        zero = w.splat(0.0, _DOUBLES)
        extremes = [cgutils.alloca_once_value(builder, w.splat(x, _DOUBLES)) for x in (float("inf"), float("-inf"))]
        kept = w.below(column, m)
        with cgutils.for_range(builder, n) as loop:
            mean = builder.load(w.place(3, loop.index))
            group = w.load(0, builder.add(builder.mul(loop.index, m), column), _DOUBLES)
            group = builder.select(kept, builder.fsub(group, w.splat(mean, _DOUBLES)), zero)
            w.store(group, 4, builder.add(builder.mul(loop.index, width), column))
            for place, order in zip(extremes, "<>", strict=True):
                before = builder.load(place)
                builder.store(builder.select(builder.fcmp_ordered(order, group, before), group, before), place)
        for place, argument in zip(extremes, (6, 7), strict=True):
            w.store(builder.load(place), argument, column)
        return context.get_dummy_value()

    integer = types.int64
    return types.void(given, integer, integer, mean, cost, integer, low, high, integer), generate


@intrinsic
def least_net(_context: Any, cost: Any, start: Any, v: Any, m: Any) -> Any:
    """Least cost of a row, net of the column potentials; both are padded to whole groups."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        w = _Writer(context, builder, signature, args)
        _, start, _, m = args
        least = cgutils.alloca_once_value(builder, w.splat(float("inf"), _DOUBLES))

        def smaller(x: Any, y: Any) -> Any:
            return builder.select(builder.fcmp_ordered("<", x, y), x, y)

        with cgutils.for_range_slice(builder, _I64(0), m, _I64(LANES), _I64) as (at, _):
            net = builder.fsub(w.load(0, builder.add(start, at), _DOUBLES), w.load(2, at, _DOUBLES))
            builder.store(smaller(net, builder.load(least)), least)
        return w.halved(builder.load(least), smaller)

    return types.float64(cost, types.int64, v, types.int64), generate


@intrinsic
def ancestors(_context: Any, mask: Any, nodes: Any, i: Any, j: Any) -> Any:
    """Tell by bits which of up to 64 nodes have a node in their subtrees, for each of two nodes."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        w = _Writer(context, builder, signature, args)
        _, nodes, i, j = args
        both = [w.splat(builder.shl(_I64(1), x), _WORDS) for x in (i, j)]
        found = [cgutils.alloca_once_value(builder, _I64(0)) for _ in both]
        with cgutils.for_range_slice(builder, _I64(0), nodes, _I64(LANES), _I64) as (at, _):
            group = w.load(0, at, _WORDS)
            for bit, so_far in zip(both, found, strict=True):
                has = w.bits(builder.icmp_signed("!=", builder.and_(group, bit), w.splat(0, _WORDS)))
                builder.store(builder.or_(builder.load(so_far), builder.shl(has, at)), so_far)
        return context.make_tuple(builder, signature.return_type, [builder.load(x) for x in found])

    return types.UniTuple(types.int64, 2)(mask, types.int64, types.int64, types.int64), generate


@intrinsic
def least_flow(_context: Any, flow: Any, nodes: Any, chosen: Any) -> Any:
    """Least flow of chosen nodes, given as bits, and the bits of those that have it."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        w = _Writer(context, builder, signature, args)
        _, nodes, chosen = args
        infinite = w.splat(float("inf"), _DOUBLES)
        least = cgutils.alloca_once_value(builder, infinite)

        def smaller(x: Any, y: Any) -> Any:
            return builder.select(builder.fcmp_ordered("<", x, y), x, y)

        with cgutils.for_range_slice(builder, _I64(0), nodes, _I64(LANES), _I64) as (at, _):
            group = builder.select(w.truths(builder.lshr(chosen, at)), w.load(0, at, _DOUBLES), infinite)
            builder.store(smaller(group, builder.load(least)), least)
        theta = w.halved(builder.load(least), smaller)
        found = cgutils.alloca_once_value(builder, _I64(0))
        with cgutils.for_range_slice(builder, _I64(0), nodes, _I64(LANES), _I64) as (at, _):
            same = w.bits(builder.fcmp_ordered("==", w.load(0, at, _DOUBLES), w.splat(theta, _DOUBLES)))
            builder.store(builder.or_(builder.load(found), builder.shl(same, at)), found)
        return context.make_tuple(builder, signature.return_type, [theta, builder.and_(builder.load(found), chosen)])

    kinds = types.Tuple((types.float64, types.int64))
    return kinds(flow, types.int64, types.int64), generate


@intrinsic
def send_around(
    _context: Any,
    flow: Any,
    mask: Any,
    nodes: Any,
    theta: Any,
    less: Any,
    more: Any,
    moved: Any,
    gains: Any,
    loses: Any,
) -> Any:
    """Send ``theta`` less, or more, over the arcs of nodes given as bits; add or take the moved ones from masks."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        w = _Writer(context, builder, signature, args)
        _, _, nodes, theta, less, more, moved, gains, loses = args
        amount, turned = w.splat(theta, _DOUBLES), w.splat(moved, _WORDS)
        others = w.splat(builder.not_(moved), _WORDS)
        with cgutils.for_range_slice(builder, _I64(0), nodes, _I64(LANES), _I64) as (at, _):

            def here(bits: Any, at: Any = at) -> Any:
                return w.truths(builder.lshr(bits, at))

            group = w.load(0, at, _DOUBLES)
            group = builder.select(here(more), builder.fadd(group, amount), group)
            w.store(builder.select(here(less), builder.fsub(group, amount), group), 0, at)
            held = w.load(1, at, _WORDS)
            held = builder.select(here(gains), builder.or_(held, turned), held)
            w.store(builder.select(here(loses), builder.and_(held, others), held), 1, at)
        return context.get_dummy_value()

    integer = types.int64
    return types.void(flow, mask, integer, types.float64, integer, integer, integer, integer, integer), generate


@intrinsic
def to_whole(_context: Any, cost: Any, at: Any, low: Any, at_low: Any, scale: Any, whole: Any, at_whole: Any) -> Any:
    """Take ``low`` off sixteen costs, and write them as multiples of -32: their whole part in units of 1 / scale."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        w = _Writer(context, builder, signature, args)
        _, at, _, at_low, scale, _, at_whole = args
        reduced = builder.fsub(w.load(0, at, _DOUBLES), w.load(2, at_low, _DOUBLES))
        w.store(reduced, 0, at)
        number = builder.fptosi(builder.fmul(reduced, w.splat(scale, _DOUBLES)), _LANES)
        w.store(builder.mul(number, w.splat(-GROUP)), 5, at_whole)
        return context.get_dummy_value()

    return types.void(cost, types.int64, low, types.int64, types.float64, whole, types.int64), generate
