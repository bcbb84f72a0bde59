// The disk tier's tables: a row per entry, its bytes (encoding.ts) in a table of their own, so that walks over keys and
// marks of use touch no body. Synchronous: it lives in the disk tier's thread (disk-worker.ts).
//
// The bound is on the pages of the file that hold something; where a new entry finds no room, what has ended goes, then
// what was of use longest ago. Of use means written or read here: what memory answers does not count, but is written
// anew with each refresh.

import type { DatabaseSync, StatementSync } from 'node:sqlite'
import { crc32 } from 'node:zlib'
import { decodeEntry, encodeEntry } from '../encoding.ts'
import { type Selector, type StoredResponse, isSelected, takesPlaceOf } from '../entry.ts'
import { type PurgeRule, afterPurge, compileKeyTest } from '../purge-rule.ts'
import type { Selecting } from '../tier.ts'

/** Of the tables below. */
export const SCHEMA_VERSION = 1

export const SCHEMA = `
  CREATE TABLE entries (
    id INTEGER PRIMARY KEY,
    key TEXT NOT NULL,
    epoch TEXT NOT NULL,
    selector TEXT NOT NULL,
    fresh_until_ms REAL NOT NULL,
    ends_at_ms REAL NOT NULL,
    used_at_ms REAL NOT NULL
  ) STRICT;
  CREATE TABLE contents (id INTEGER PRIMARY KEY, bytes BLOB NOT NULL) STRICT;
  CREATE TABLE tags (tag TEXT NOT NULL, id INTEGER NOT NULL, PRIMARY KEY (tag, id)) STRICT, WITHOUT ROWID;
  CREATE TABLE purges (count INTEGER NOT NULL) STRICT;
  INSERT INTO purges VALUES (0);
  CREATE INDEX entries_by_key ON entries (key, epoch);
  CREATE INDEX entries_by_end ON entries (ends_at_ms);
  CREATE INDEX entries_by_use ON entries (used_at_ms);
  CREATE INDEX tags_by_id ON tags (id);
`

/** Variants kept under one key and epoch, as in memory. */
const MAX_VARIANTS = 16
/** Entries that go in one step of tidying. */
const BATCH = 64
/** When the file is full, this share of it is made free at once. */
const SLACK = 0.05
/** An entry that takes more than this share of the file is not kept. */
const MAX_SHARE = 0.5
/** How exact marks of use are. */
const USE_STEP_MS = 60_000
/** Pages given back to the file system in one step. */
const PAGES_GIVEN_BACK = 1000

/** An entry as it goes to the disk. */
export interface DiskRecord extends Selector {
  readonly key: string
  readonly epoch: string
  readonly tags: readonly string[]
  readonly freshUntilMs: number
  /** After this it is of no use. */
  readonly endsAtMs: number
  /** Of encodeEntry. */
  readonly bytes: Uint8Array
}

/** What a read has found: the bytes of an entry, if all is well. */
export interface Found {
  readonly id: number
  readonly bytes: Uint8Array
}

/** What an entry is written down as. */
export const recordOf = (entry: StoredResponse): DiskRecord => ({
  key: entry.key,
  epoch: entry.epoch,
  claims: entry.claims,
  varyNames: entry.varyNames,
  varyValues: entry.varyValues,
  tags: entry.tags,
  freshUntilMs: entry.freshUntilMs,
  endsAtMs: Math.max(entry.freshUntilMs, entry.staleWhileRevalidateUntilMs, entry.staleIfErrorUntilMs),
  bytes: encodeEntry(entry),
})

interface VariantRow {
  readonly id: number
  readonly selector: string
  readonly fresh_until_ms: number
  readonly ends_at_ms: number
  readonly used_at_ms: number
}

const SQL = {
  pageCount: 'PRAGMA page_count',
  freePages: 'PRAGMA freelist_count',
  variants: `SELECT id, selector, fresh_until_ms, ends_at_ms, used_at_ms FROM entries WHERE key = ? AND epoch = ?
             ORDER BY id DESC`,
  contents: 'SELECT bytes FROM contents WHERE id = ?',
  insert: `INSERT INTO entries (key, epoch, selector, fresh_until_ms, ends_at_ms, used_at_ms) VALUES (?, ?, ?, ?, ?, ?)`,
  insertContents: 'INSERT INTO contents (id, bytes) VALUES (?, ?)',
  insertTag: 'INSERT OR IGNORE INTO tags (tag, id) VALUES (?, ?)',
  use: 'UPDATE entries SET used_at_ms = ? WHERE id = ?',
  retime: 'UPDATE entries SET fresh_until_ms = ?, ends_at_ms = ? WHERE id = ?',
  replaceContents: 'UPDATE contents SET bytes = ? WHERE id = ?',
  drop: 'DELETE FROM entries WHERE id = ?',
  dropContents: 'DELETE FROM contents WHERE id = ?',
  dropTags: 'DELETE FROM tags WHERE id = ?',
  dropAll: 'DELETE FROM entries',
  dropAllContents: 'DELETE FROM contents',
  dropAllTags: 'DELETE FROM tags',
  ended: 'SELECT id FROM entries WHERE ends_at_ms <= ? ORDER BY ends_at_ms LIMIT ?',
  leastUsed: 'SELECT id FROM entries ORDER BY used_at_ms, id LIMIT 1',
  allKeys: 'SELECT id, key FROM entries',
  keysBetween: 'SELECT id, key FROM entries WHERE key >= ? AND key < ?',
  tagged: 'SELECT id FROM tags WHERE tag = ?',
  countPurge: 'UPDATE purges SET count = count + 1',
  giveBack: `PRAGMA incremental_vacuum(${PAGES_GIVEN_BACK})`,
} as const

type Statements = { readonly [Name in keyof typeof SQL]: StatementSync }

/** Every method may throw what SQLite throws; of the transaction that it belongs to, nothing has happened then. */
export class DiskDatabase {
  readonly #connection: DatabaseSync
  readonly #run: Statements
  readonly #maxBytes: number
  readonly #pageBytes: number
  /** The transaction has purged something. */
  #hasPurged = false

  /** connection: to a file with SCHEMA in it. */
  constructor(connection: DatabaseSync, maxBytes: number) {
    const prepared = Object.entries(SQL).map(([name, sql]) => [name, connection.prepare(sql)])
    this.#connection = connection
    this.#run = Object.fromEntries(prepared) as Statements
    this.#maxBytes = maxBytes
    this.#pageBytes = numberIn(connection.prepare('PRAGMA page_size'))
  }

  /** Bytes of the file that hold something. */
  get usedBytes(): number {
    return (numberIn(this.#run.pageCount) - numberIn(this.#run.freePages)) * this.#pageBytes
  }

  /** Runs `work` as a whole or not at all. What it purged is on the disk itself when this returns. */
  transaction<T>(work: () => T): T {
    this.#hasPurged = false
    this.#connection.exec('BEGIN IMMEDIATE')
    let result: T
    try {
      result = work()
      this.#connection.exec('COMMIT')
    } catch (error) {
      if (this.#connection.isTransaction) this.#connection.exec('ROLLBACK')
      throw error
    }
    if (this.#hasPurged) this.#sync()
    return result
  }

  /** What a request may be answered by, fresh where there is such; its mark of use is set. */
  read(key: string, epoch: string, by: Selecting, nowMs: number): Found | null {
    let best: VariantRow | null = null
    for (const row of this.#variants(key, epoch)) {
      const selector = readSelector(row.selector)
      if (selector === null) this.remove(row.id)
      if (selector === null || row.ends_at_ms <= nowMs || !isSelected(by.headers, by.claims, selector)) continue
      if (best === null || (best.fresh_until_ms <= nowMs && row.fresh_until_ms > nowMs)) best = row
    }
    if (best === null) return null
    if (best.used_at_ms < nowMs - USE_STEP_MS) this.#run.use.run(nowMs, best.id)
    const bytes = this.#contentsOf(best.id)
    return bytes === null ? null : { id: best.id, bytes }
  }

  /** Puts an entry in the place of those that the same requests select. False where it is not kept. */
  write(record: DiskRecord, nowMs: number): boolean {
    const { key, epoch, claims, varyNames, varyValues, bytes } = record
    let others = 0
    for (const row of this.#variants(key, epoch)) {
      const selector = readSelector(row.selector)
      if (selector === null || takesPlaceOf(record, selector) || ++others >= MAX_VARIANTS) this.remove(row.id)
    }
    // A key that is no Unicode would be another one when it is read.
    if (record.endsAtMs <= nowMs || bytes.length > this.#maxBytes * MAX_SHARE || !key.isWellFormed()) return false
    this.#makeRoom(bytes.length, nowMs)
    const selector = writeSelector({ claims, varyNames, varyValues })
    const { lastInsertRowid: id } = this.#run.insert.run(
      key,
      epoch,
      selector,
      record.freshUntilMs,
      record.endsAtMs,
      nowMs,
    )
    this.#run.insertContents.run(id, bytes)
    for (const tag of record.tags) this.#run.insertTag.run(tag, id)
    return true
  }

  /** Removes all variants under a key of this epoch. */
  delete(key: string, epoch: string): void {
    for (const { id } of this.#variants(key, epoch)) this.remove(id)
    this.#hasPurged = true
  }

  remove(id: number): void {
    this.#run.drop.run(id)
    this.#run.dropContents.run(id)
    this.#run.dropTags.run(id)
  }

  /** Carries out a rule, on the entries of all epochs. Answers how many it took, or made stale. */
  purge(rule: PurgeRule, nowMs: number): number {
    const isSoft = rule.soft === true
    if (rule.all === true && !isSoft) {
      const { changes } = this.#run.dropAll.run()
      this.#run.dropAllContents.run()
      this.#run.dropAllTags.run()
      this.#hasPurged ||= changes !== 0
      return Number(changes)
    }
    const ids = this.#named(rule)
    for (const id of ids)
      if (isSoft) this.#soften(id, nowMs)
      else this.remove(id)
    this.#hasPurged ||= ids.size > 0
    return ids.size
  }

  /** A step of what is to be done now and then: removes what has ended, and keeps to the bound. True when more is left. */
  tidy(nowMs: number): boolean {
    const ended = this.#ended(nowMs)
    for (const id of ended) this.remove(id)
    let steps = ended.length
    while (this.usedBytes > this.#maxBytes && steps < BATCH && this.#evict()) steps++
    const fileBytes = numberIn(this.#run.pageCount) * this.#pageBytes
    const givesBack = fileBytes > this.#maxBytes && numberIn(this.#run.freePages) > 0
    if (givesBack) this.#run.giveBack.all()
    return steps >= BATCH || givesBack
  }

  /** A commit that is synced takes all commits before it along. */
  #sync(): void {
    this.#connection.exec('PRAGMA synchronous = FULL')
    this.#run.countPurge.run()
    this.#connection.exec('PRAGMA synchronous = NORMAL')
  }

  /** Newest first. */
  #variants(key: string, epoch: string): readonly VariantRow[] {
    return this.#run.variants.all(key, epoch) as unknown as readonly VariantRow[]
  }

  #contentsOf(id: number): Uint8Array | null {
    const row = this.#run.contents.get(id)
    return row?.['bytes'] instanceof Uint8Array ? row['bytes'] : null
  }

  #ended(nowMs: number): readonly number[] {
    return this.#run.ended.all(nowMs, BATCH).map(({ id }) => id as number)
  }

  #named(rule: PurgeRule): ReadonlySet<number> {
    const ids = new Set<number>()
    const test = compileKeyTest(rule)
    if (test !== null) {
      const take = (rows: Iterable<Record<string, unknown>>): void => {
        for (const { id, key } of rows) if (test(key as string)) ids.add(id as number)
      }
      const ranges = rangesOf(rule)
      if (ranges === null) take(this.#run.allKeys.iterate())
      else for (const [from, to] of ranges) take(this.#run.keysBetween.iterate(from, to))
    }
    for (const tag of rule.tags ?? []) for (const { id } of this.#run.tagged.iterate(tag)) ids.add(id as number)
    return ids
  }

  #soften(id: number, nowMs: number): void {
    const bytes = this.#contentsOf(id)
    const entry = bytes === null ? null : decodeEntry(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength))
    const left = entry === null ? null : afterPurge(entry, true, nowMs)
    if (left === entry && left !== null) return
    if (left === null) return this.remove(id)
    const record = recordOf(left)
    this.#run.retime.run(record.freshUntilMs, record.endsAtMs, id)
    this.#run.replaceContents.run(record.bytes, id)
  }

  #makeRoom(bytes: number, nowMs: number): void {
    if (this.usedBytes + bytes <= this.#maxBytes) return
    const limitBytes = this.#maxBytes * (1 - SLACK) - bytes
    for (const id of this.#ended(nowMs)) this.remove(id)
    while (this.usedBytes > limitBytes && this.#evict()) continue
  }

  /** Removes what was of use longest ago. False where there is nothing. */
  #evict(): boolean {
    const id = this.#run.leastUsed.get()?.['id']
    if (id === undefined) return false
    this.remove(id as number)
    return true
  }
}

const numberIn = (statement: StatementSync): number => Number(Object.values(statement.get() ?? {})[0])

/** As text that proves itself, since it is read without the entry's own checksum. */
function writeSelector(selector: Selector): string {
  const json = JSON.stringify(selector)
  return `${crc32(json)} ${json}`
}

/** Null where that is not how it was written. */
function readSelector(text: string): Selector | null {
  const json = text.slice(text.indexOf(' ') + 1)
  return text === `${crc32(json)} ${json}` ? (JSON.parse(json) as Selector) : null
}

/** Where the keys are that a rule may name; null: anywhere. */
function rangesOf({ urls = [], prefix, pattern, all }: PurgeRule): readonly (readonly [string, string])[] | null {
  if (all === true) return null
  const beginnings = [prefix, pattern?.slice(0, `${pattern}*`.indexOf('*'))].filter((text) => text !== undefined)
  const ranges: (readonly [string, string])[] = []
  for (const [texts, beyond] of [
    // A key is a URL, or that and lines that follow.
    [urls, '\v'],
    [beginnings, '\u{10ffff}'],
  ] as const) {
    for (const text of texts) {
      const isOfOneScheme = /^https?:/.test(text)
      if (!isOfOneScheme && !text.startsWith('//')) return null
      for (const scheme of isOfOneScheme ? [''] : ['http:', 'https:']) {
        ranges.push([scheme + text, scheme + text + beyond])
      }
    }
  }
  return ranges
}
