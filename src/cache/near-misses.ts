// Misses that were nearly hits: requests that differ in a field or two from one of shortly before, which is told field by
// field, with what to write into the route table. The commonest of them is an id or a time that each request is given
// anew and that changes no answer.
//
// What a request says is not kept: of each field a hash, keyed at random with each start, and what kind of value it looks
// like. Names of fields come from clients too: they are told only where they look like names, and only once several misses
// have differed in them.
//
// A field is advised to be ignored only where all else was the same, where its values look as if a machine had made them
// for the request, and where none comes again with something else: what names a user or a document does. Nobody can be
// sure of that here, so the advice says on what condition.
//
// Nothing of this is on the way of a hit. Bounds: one miss in MIN_GAP_MS is looked at on each route, and one in
// MIN_GAP_OF_ALL_MS on all of them; of a route MAX_SHAPES requests are remembered and MAX_NAMES names counted, of all
// routes MAX_FIELDS fields (some 6 MiB).

import type { RequestContext } from '../core/context.ts'
import type { NearMisses } from '../core/control.ts'
import { KeyedHash } from '../core/keyed-hash.ts'
import { type JsonValue, formatCanonical } from '../http/json.ts'
import type { KeyRule } from './key-rule.ts'
import { KINDS, type Kind, MADE, OF_NOW, PLAIN, TRACKING, looksOf } from './looks.ts'
import { isKeyedByBody } from './methods.ts'
import type { Reason } from './reasons.ts'

const MIN_GAP_MS = 50
/** Looking at a miss takes 20 us of CPU, at the largest ones 0.4 ms. */
const MIN_GAP_OF_ALL_MS = 10
const MAX_SHAPES = 128
const MAX_FIELDS = 65_536
/** In one request; with more it is not compared. */
const MAX_FIELDS_EACH = 48
/** Beyond these, arrays and objects are compared as one field. */
const MAX_DEPTH = 6
const MAX_ELEMENTS = 8
/** Characters of one request; with more it is not compared. */
const MAX_LENGTH = 65_536
const MAX_NAMES = 64
/** From how many misses on the counts are halved: so they are those of late. */
const MAX_COUNTED = 1000
const MIN_COUNTED = 20
const MIN_SIGHTINGS = 3
const MAX_TOLD = 10
/** Of all misses, from which on it is worth a line in the route table. */
const WORTH_IT = 0.05

/** What is known of the misses of one route. */
export interface MissWatch {
  /** Whether to look at a miss now; nowMs: wall clock. Where it answers true, one of the calls below follows. */
  isDue(nowMs: number): boolean
  /** Something is stored under its key that could not be used, so no field is to blame. */
  sawOther(): void
  /** elsewhere: all of the key but the body. counted: what counts of that; null: it was not read. */
  sawBody(elsewhere: string, counted: JsonValue | null, nowMs: number): void
  /** url: what of it counts. */
  sawUrl(url: string, nowMs: number): void
}

/** The watches of all routes. They outlive a reload, as long as the rule of the route's keys stays as it is. */
export class MissWatches {
  readonly #watches = new Map<string, { readonly rule: string; readonly watch: Watch }>()
  readonly #held: Held = { hash: new KeyedHash(), fields: 0, lookedAtMs: -Infinity }

  /** rule: stands for what makes keys. */
  ofRoute(route: string, rule: string): MissWatch {
    const known = this.#watches.get(route)
    if (known?.rule === rule) return known.watch
    known?.watch.end()
    const watch = new Watch(this.#held)
    this.#watches.set(route, { rule, watch })
    return watch
  }

  keepRoutes(live: ReadonlySet<string>): void {
    for (const [route, { watch }] of this.#watches) {
      if (live.has(route)) continue
      watch.end()
      this.#watches.delete(route)
    }
  }

  /** By route, where misses differ in anything. */
  report(): Readonly<Record<string, NearMisses>> {
    const reports = [...this.#watches].map(([route, { watch }]) => [route, watch.report()] as const)
    return Object.fromEntries(reports.filter(([, { differs }]) => differs.length > 0))
  }
}

/** Called with every miss that goes to the origin. counted: what counts of its body. nowMs: wall clock. */
export function compileMissLook(
  watch: MissWatch,
  { ofGet, isGraphql }: Pick<KeyRule, 'ofGet' | 'isGraphql'>,
): (ctx: RequestContext, reason: Reason, counted: JsonValue | null, nowMs: number) => void {
  return (ctx, reason, counted, nowMs) => {
    if (!watch.isDue(nowMs)) return
    // Of GraphQL there is nothing that a route could ignore.
    const url = reason === 'absent' && !isGraphql ? ofGet(ctx) : null
    if (url === null) watch.sawOther()
    else if (isKeyedByBody(ctx.method)) watch.sawBody(url, counted, nowMs)
    else watch.sawUrl(url, nowMs)
  }
}

/** What all watches have together. */
interface Held {
  readonly hash: KeyedHash
  fields: number
  lookedAtMs: number
}

/** One request: by field a hash of its value, with its kind in the lowest bits. */
interface Shape {
  readonly elsewhere: number
  readonly fields: ReadonlyMap<string, number>
}

/** A request that another differs from in one field or two. */
interface Near {
  /** The less, the nearer: what machines make counts for little. */
  readonly rank: number
  readonly differing: readonly string[]
  /** Machines have made all in which they differ. */
  readonly isMade: boolean
  readonly other: Shape
}

/** Of one field. */
interface Counts {
  /** Misses that differed in it, and perhaps in one other. */
  near: number
  /** Of those, which differed in nothing but what machines make. */
  made: number
  /** Of those, which differed in nothing but that one had it and the other had not. */
  absent: number
  /** How often a value of it that is MADE came in two requests that differed in something else. */
  repeated: number
}

class Watch implements MissWatch {
  readonly #held: Held
  /** The oldest first. */
  readonly #shapes: Shape[] = []
  readonly #counts = new Map<string, Counts>()
  #lookedAtMs = -Infinity
  #looked = 0
  #isOver = false
  /** Characters that may still be hashed of one request. */
  #room = 0

  constructor(held: Held) {
    this.#held = held
  }

  isDue(nowMs: number): boolean {
    if (this.#isOver || isWithin(MIN_GAP_MS, this.#lookedAtMs, nowMs)) return false
    if (isWithin(MIN_GAP_OF_ALL_MS, this.#held.lookedAtMs, nowMs)) return false
    this.#lookedAtMs = nowMs
    this.#held.lookedAtMs = nowMs
    return true
  }

  sawOther(): void {
    if (++this.#looked >= MAX_COUNTED) this.#halve()
  }

  sawBody(elsewhere: string, counted: JsonValue | null, nowMs: number): void {
    this.sawOther()
    const fields = new Map<string, number>()
    this.#room = MAX_LENGTH
    if (counted !== null && this.#addFields(fields, '', counted, 0, nowMs)) this.#compare(elsewhere, fields)
  }

  sawUrl(url: string, nowMs: number): void {
    this.sawOther()
    const [before = '', query = '', after = ''] = /^([^?\n]*)\??([^\n]*)(.*)$/s.exec(url)?.slice(1) ?? []
    if (query.length > MAX_LENGTH) return
    const fields = this.#parametersOf(query, nowMs)
    if (fields.size <= MAX_FIELDS_EACH) this.#compare(before + after, fields)
  }

  /** For requests that began before a reload, nothing is looked at any more. */
  end(): void {
    this.#isOver = true
    while (this.#shapes.length > 0) this.#forgetOldest()
  }

  report(): NearMisses {
    const told = [...this.#counts]
      .filter(([, { near }]) => near >= MIN_SIGHTINGS && this.#looked >= MIN_COUNTED)
      .toSorted(([, a], [, b]) => b.near - a.near)
      .slice(0, MAX_TOLD)
    return {
      misses: this.#looked,
      differs: told.map(([field, counts]) => ({
        field,
        percent_of_misses: this.#percent(counts.near),
        advice: this.#advice(field, counts),
      })),
    }
  }

  #advice(field: string, { made, absent, repeated }: Counts): string | null {
    const isParameter = !field.startsWith('/')
    const isElement = /\/\d+$/.test(field)
    if (!isElement && made >= WORTH_IT * this.#looked && repeated <= made / 20) {
      const list = isParameter ? 'key.query.ignore' : 'key.body.ignore'
      return `${field} differs in ${this.#percent(made)} % of misses: if no answer depends on it, add it to ${list}`
    }
    if (isParameter || isElement || absent < WORTH_IT * this.#looked) return null
    return `${field} is there or absent in ${this.#percent(absent)} % of misses, all else alike: if absent means the same as some value, name that in key.body.defaults`
  }

  #percent(count: number): number {
    return Math.round((100 * count) / this.#looked)
  }

  /** False where there are too many, or none that has a name. */
  #addFields(fields: Map<string, number>, pointer: string, value: JsonValue, depth: number, nowMs: number): boolean {
    const members = depth < MAX_DEPTH ? namedIn(value) : null
    if (members !== null) {
      for (const [name, member] of members) {
        if (!this.#addFields(fields, `${pointer}/${name}`, member, depth + 1, nowMs)) return false
      }
      return true
    }
    const isText = typeof value === 'string'
    const text = isText ? value : formatCanonical(value)
    this.#room -= text.length
    if (this.#room < 0 || fields.size === MAX_FIELDS_EACH || pointer === '') return false
    fields.set(pointer, this.#hash(text, isText ? 1 : 0, looksOf(text, nowMs)))
    return true
  }

  /** By name, as the URL spells it; those of a family are one, since they come and go together. */
  #parametersOf(query: string, nowMs: number): Map<string, number> {
    const values = new Map<string, string[]>()
    for (const text of query.split('&')) {
      if (text === '') continue
      const name = /^[^=]*/.exec(text)?.[0] ?? ''
      const field = name.startsWith('utm_') ? 'utm_*' : NAME.test(name) ? name : UNTOLD
      const value = field === name ? text.slice(name.length + 1) : text
      const others = values.get(field)
      if (others === undefined) values.set(field, [value])
      else others.push(value)
    }
    const hashed = [...values].map(([field, all]): [string, number] => {
      const text = all.join('&')
      return [field, this.#hash(text, all.length, TRACKING.test(field) ? OF_NOW : looksOf(text, nowMs))]
    })
    return new Map(hashed)
  }

  /** 52 bits, the kind among them. */
  #hash(text: string, salt: number, kind: Kind): number {
    const { hash } = this.#held
    const low = hash.of(text, salt) >>> 0
    const whole = (hash.high >>> 12) * 2 ** 32 + low
    return whole - (whole % KINDS) + kind
  }

  #compare(elsewhere: string, fields: Map<string, number>): void {
    const shape: Shape = { elsewhere: this.#hash(elsewhere, 0, PLAIN), fields }
    let nearest: Near[] = []
    for (const other of this.#shapes) {
      if (other.elsewhere !== shape.elsewhere) continue
      const differing = differences(shape, other)
      // It has been asked for before, and was not kept.
      if (differing?.length === 0) return
      this.#countRepeated(shape, other)
      if (differing === null) continue
      const plain = differing.filter((field) => !isMadeIn(shape, other, field)).length
      const rank = 3 * plain + differing.length
      const best = nearest[0]?.rank ?? Infinity
      if (rank < best) nearest = []
      if (rank <= best) nearest.push({ rank, differing, isMade: plain === 0, other })
    }
    this.#count(shape, nearest)
    this.#remember(shape)
  }

  /** nearest: all of one rank. Each field counts once. */
  #count(shape: Shape, nearest: readonly Near[]): void {
    const counted = new Set([UNTOLD])
    for (const { differing, isMade, other } of nearest) {
      for (const field of differing) {
        const counts = counted.has(field) ? null : this.#countsOf(field)
        counted.add(field)
        if (counts === null) continue
        counts.near++
        if (isMade) counts.made++
        if (differing.length === 1 && shape.fields.has(field) !== other.fields.has(field)) counts.absent++
      }
    }
  }

  #countRepeated(shape: Shape, other: Shape): void {
    for (const [field, hash] of shape.fields) {
      if (kindOf(hash) !== MADE || other.fields.get(field) !== hash) continue
      const counts = this.#counts.get(field)
      if (counts !== undefined) counts.repeated++
    }
  }

  #countsOf(field: string): Counts | null {
    const known = this.#counts.get(field)
    if (known !== undefined) return known
    if (this.#counts.size >= MAX_NAMES) return null
    const counts = { near: 0, made: 0, absent: 0, repeated: 0 }
    this.#counts.set(field, counts)
    return counts
  }

  #remember(shape: Shape): void {
    const { size } = shape.fields
    while (this.#shapes.length >= MAX_SHAPES) this.#forgetOldest()
    while (this.#held.fields + size > MAX_FIELDS && this.#shapes.length > 0) this.#forgetOldest()
    if (this.#held.fields + size > MAX_FIELDS) return
    this.#held.fields += size
    this.#shapes.push(shape)
  }

  #forgetOldest(): void {
    const oldest = this.#shapes.shift()
    this.#held.fields -= oldest?.fields.size ?? 0
  }

  #halve(): void {
    this.#looked = Math.floor(this.#looked / 2)
    for (const [field, counts] of this.#counts) {
      for (const which of ['near', 'made', 'absent', 'repeated'] as const) counts[which] = Math.floor(counts[which] / 2)
      if (counts.near === 0) this.#counts.delete(field)
    }
  }
}

/** What is compared one by one: members by names that may be told, and objects in short arrays; null: the value is one. */
function namedIn(value: JsonValue): Iterable<readonly [string | number, JsonValue]> | null {
  if (value instanceof Map) {
    return value.size > 0 && [...value.keys()].every((name) => NAME.test(name)) ? value : null
  }
  const isShort = Array.isArray(value) && value.length > 0 && value.length <= MAX_ELEMENTS
  return isShort && value.every((element) => element instanceof Map) ? value.entries() : null
}

/** In what two requests differ; null: in more than two fields. */
function differences({ fields }: Shape, { fields: others }: Shape): readonly string[] | null {
  const differing: string[] = []
  let shared = 0
  for (const [field, hash] of fields) {
    const other = others.get(field)
    if (other !== undefined) shared++
    if (other !== hash && differing.push(field) > 2) return null
  }
  if (others.size === shared) return differing
  for (const field of others.keys()) if (!fields.has(field) && differing.push(field) > 2) return null
  return differing
}

/** A clock that has gone back is no reason to wait. */
const isWithin = (gapMs: number, sinceMs: number, nowMs: number): boolean => nowMs >= sinceMs && nowMs - sinceMs < gapMs

/** Whether a machine has made its values, as far as they are there. */
const isMadeIn = ({ fields }: Shape, { fields: others }: Shape, field: string): boolean =>
  kindOf(fields.get(field) ?? MADE) !== PLAIN && kindOf(others.get(field) ?? MADE) !== PLAIN

const kindOf = (hash: number): number => hash % KINDS

/** All names that are not told. */
const UNTOLD = '(other)'
const NAME = /^[A-Za-z_][A-Za-z0-9_-]{0,39}$/
