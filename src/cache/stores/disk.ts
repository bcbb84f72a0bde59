// The disk tier: entries that outlive the process, in a file that only the disk tier's thread touches (disk-worker.ts).
// This side keeps what waits for the disk within bounds, in bytes and in time, and knows whether the thread is well.
//
// Orders are carried out one after another, so a read never finds what was removed before it, done or not yet done.
// While the thread owes an answer that is late, or is down, the tier is passed over. Removals are never passed over:
// where they pile up, everything goes in their place.

import { extname, resolve } from 'node:path'
import { Worker } from 'node:worker_threads'
import type { ChangeLog } from '../../core/availability.ts'
import { Sweeper } from '../../core/deadlines.ts'
import { decodeEntry } from '../encoding.ts'
import { type StoredResponse, isSelected } from '../entry.ts'
import type { PurgeRule } from '../purge-rule.ts'
import type { CacheTier, Selecting, TierCounts } from '../tier.ts'
import { recordOf } from './disk-database.ts'
import type { DiskOrder, DiskReport, DiskResult, DiskSetup, DiskTask } from './disk-worker.ts'

/** Bytes of entries that wait for the disk. */
const MAX_WAITING_BYTES = 16 * 1024 ** 2
/** Bytes of removals that wait, on top. */
const MAX_REMOVAL_BYTES = 4 * 1024 ** 2
/** What an order takes beside its text and body. */
const ORDER_BYTES = 500
/** A read that takes longer is a miss. */
const READ_MS = 100
/** A purge that takes longer counts as not done. */
const PURGE_MS = 10_000
const CLOSE_MS = 5000
/** Before a thread that has ended is started again. */
const RESTART_MS = 5000

export interface DiskTierOptions {
  /** Absolute, or from the working directory. */
  readonly path: string
  readonly maxBytes: number
}

export interface DiskTier extends CacheTier {
  /** Opens the file. Rejects with the reason, in words, where it cannot be used. Once. */
  open(): Promise<void>
  readonly isUp: boolean
  /** Bytes of the file that hold something. */
  readonly bytes: number
  /** True where a removal has not been confirmed: what should be gone may be in the file, for the next start. */
  readonly isUnsure: boolean
}

interface Waiting {
  readonly bytes: number
  readonly isRemoval: boolean
  /** result: null where the thread has ended. */
  readonly settle: (result: DiskResult | null) => void
}

/** now: wall clock, milliseconds. */
export const createDiskTier = (options: DiskTierOptions, now: () => number, log: ChangeLog): DiskTier =>
  // Absolute, because to SQLite some names are no files.
  new Disk({ ...options, path: resolve(options.path) }, now, log)

class Disk implements DiskTier {
  readonly name = 'disk'
  readonly counts = { hits: 0, misses: 0, bad: 0, locked: 0, failed: 0, written: 0, dropped: 0 } satisfies TierCounts
  bytes = 0
  isUp = false
  isUnsure = false
  readonly #options: DiskTierOptions
  readonly #now: () => number
  readonly #log: ChangeLog
  readonly #reads = new Sweeper(READ_MS, () => {})
  readonly #purges = new Sweeper(PURGE_MS, () => {})
  readonly #waiting = new Map<number, Waiting>()
  #waitingBytes = 0
  #removalBytes = 0
  /** Reads that were not answered in time, and are not answered yet. */
  readonly #late = new Set<number>()
  /** Removals have been left out: nothing is read before everything is removed. */
  #owesAll = false
  #lastNumber = 0
  #worker: Worker | null = null
  #restartTimer: NodeJS.Timeout | undefined
  /** It has been down, and the log has said so. */
  #isDown = false
  /** The file cannot be used, and was refused at the start. */
  #isUnusable = false
  #isOpened = false
  #isClosed = false
  readonly #opened = Promise.withResolvers<void>()
  readonly #closed = Promise.withResolvers<void>()

  constructor(options: DiskTierOptions, now: () => number, log: ChangeLog) {
    this.#options = options
    this.#now = now
    this.#log = log
  }

  open(): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#start({ startsEmpty: false, triesAgain: false }, (trouble) => {
        this.#isOpened = true
        this.#opened.resolve()
        if (trouble === null) resolve()
        else reject(new Error(`cache.disk.path: cannot use ${this.#options.path}: ${trouble}`))
      })
    })
  }

  async read(key: string, epoch: string, by: Selecting): Promise<readonly StoredResponse[]> {
    const result = this.#mayRead() ? await this.#ask({ kind: 'read', key, epoch, by }, this.#reads) : null
    if (result === null || !result.done) {
      this.counts.failed++
      return []
    }
    const { found } = result
    if (found === null) {
      this.counts.misses++
      return []
    }
    const { buffer, byteOffset, byteLength } = found.bytes
    const entry = decodeEntry(Buffer.from(buffer, byteOffset, byteLength))
    if (entry?.key !== key || entry.epoch !== epoch || !isSelected(by.headers, by.claims, entry)) {
      this.counts.bad++
      this.#post({ kind: 'remove', id: found.id }, 0, false, () => {})
      return []
    }
    this.counts.hits++
    return [entry]
  }

  write(entry: StoredResponse): void {
    const { key, epoch } = entry
    if (!this.isUp || this.#owesAll) return void this.counts.dropped++
    if (this.#waitingBytes + entry.sizeBytes > MAX_WAITING_BYTES) {
      this.counts.dropped++
      // Nor must an older one answer in its place.
      return this.delete(key, epoch)
    }
    const record = recordOf(entry)
    this.#post({ kind: 'write', record }, entry.sizeBytes, false, (result) => {
      if (result?.done === true) this.counts.written++
      else if (record.endsAtMs > this.#now()) this.counts.dropped++
    })
  }

  delete(key: string, epoch: string): void {
    void this.#remove({ kind: 'delete', key, epoch }, key.length + epoch.length)
  }

  /** Done so that not even a loss of power undoes it. What could not be removed alone has been removed with all else. */
  purge(rule: PurgeRule): Promise<number | null> {
    return this.#remove({ kind: 'purge', rule }, JSON.stringify(rule).length)
  }

  async close(): Promise<void> {
    if (this.#isClosed) return
    this.#isClosed = true
    this.isUp = false
    this.#opened.resolve()
    clearTimeout(this.#restartTimer)
    const worker = this.#worker
    if (worker === null) return
    this.#post({ kind: 'close' }, 0, false, () => {})
    const timer = setTimeout(() => this.#closed.resolve(), CLOSE_MS)
    await this.#closed.promise
    clearTimeout(timer)
    await worker.terminate()
  }

  // ---- orders ----

  #mayRead(): boolean {
    return this.isUp && !this.#owesAll && this.#late.size === 0
  }

  /** Resolves with how many entries that took; null where it is not done. Before the file is open, it waits for that. */
  async #remove(task: DiskTask & { kind: 'delete' | 'purge' }, bytes: number): Promise<number | null> {
    // Not otherwise: what is called after this call comes after it.
    if (!this.#isOpened) await this.#opened.promise
    if (this.#isClosed) return null
    if (this.#worker === null || this.#owesAll || this.#removalBytes + bytes > MAX_REMOVAL_BYTES) {
      this.#owesAll = true
      this.#doubt()
      this.#payAll()
      return null
    }
    const result = await this.#ask(task, this.#purges, bytes)
    if (result?.done === true) {
      this.isUnsure = false
      return result.taken
    }
    this.#doubt()
    return null
  }

  #doubt(): void {
    if (!this.isUnsure) this.#log.warn({ path: this.#options.path }, 'Disk tier has not confirmed a purge')
    this.isUnsure = true
  }

  /** Resolves with null where there is no answer in time. */
  #ask(task: DiskTask, within: Sweeper, bytes = 0): Promise<DiskResult | null> {
    return new Promise((resolve) => {
      const wait = within.add(() => {
        if (task.kind === 'read') this.#late.add(n)
        resolve(null)
      })
      const n = this.#post(task, bytes, task.kind !== 'read', (result) => {
        this.#late.delete(n)
        if (within.delete(wait)) resolve(result)
      })
    })
  }

  #post(task: DiskTask, textBytes: number, isRemoval: boolean, settle: Waiting['settle']): number {
    const n = ++this.#lastNumber
    const bytes = textBytes + ORDER_BYTES
    this.#waiting.set(n, { bytes, isRemoval, settle })
    if (isRemoval) this.#removalBytes += bytes
    else this.#waitingBytes += bytes
    const order: DiskOrder = { ...task, n, nowMs: this.#now() }
    const transfer = task.kind === 'write' ? [task.record.bytes.buffer as ArrayBuffer] : []
    this.#worker?.postMessage(order, transfer)
    return n
  }

  #settle(n: number, result: DiskResult | null): void {
    const waiting = this.#waiting.get(n)
    if (waiting === undefined) return
    this.#waiting.delete(n)
    if (waiting.isRemoval) this.#removalBytes -= waiting.bytes
    else this.#waitingBytes -= waiting.bytes
    waiting.settle(result)
  }

  // ---- the thread ----

  /** opened: called once, with null or with why not. */
  #start(how: Pick<DiskSetup, 'startsEmpty' | 'triesAgain'>, opened: (trouble: string | null) => void): void {
    const { path, maxBytes } = this.#options
    const workerData: DiskSetup = { path, maxBytes, ...how }
    // Beside this file, as source or built (rolldown.config.ts).
    const file = new URL(`disk-worker${extname(import.meta.url)}`, import.meta.url)
    const worker = new Worker(file, { workerData, name: 'weirgate-disk' })
    worker.unref()
    worker.on('message', (report: DiskReport) => this.#take(report, opened))
    worker.on('error', (error) => this.#down(error instanceof Error ? error.message : String(error)))
    worker.on('exit', () => this.#ended())
    this.#worker = worker
  }

  #take(report: DiskReport, opened: (trouble: string | null) => void): void {
    switch (report.kind) {
      case 'results':
        this.bytes = report.usedBytes
        for (const result of report.results) this.#settle(result.n, result)
        this.#payAll()
        break
      case 'up':
        this.bytes = report.usedBytes
        this.#up(report.setAside)
        opened(null)
        break
      case 'down':
        if (!report.isFinal) this.#down(report.reason)
        else this.#isUnusable = true
        opened(report.reason)
        break
      case 'closed':
        this.#closed.resolve()
        break
      default:
        report satisfies never
    }
  }
  /** Nobody waits any more, so what was left out can be made good. */
  #payAll(): void {
    if (!this.#owesAll || this.#worker === null || this.#waiting.size > 0) return
    this.#post({ kind: 'purge', rule: { all: true } }, 0, true, (result) => {
      if (result?.done !== true) return
      this.#owesAll = false
      this.isUnsure = false
    })
  }

  #up(setAside: string | null): void {
    const { path } = this.#options
    if (setAside !== null) this.#log.warn({ path, set_aside: setAside }, 'Disk tier was damaged, it starts empty')
    if (this.#isDown) this.#log.info({ path }, 'Disk tier is up')
    this.#isDown = false
    this.isUp = true
    this.#payAll()
  }

  #down(reason: string): void {
    if (!this.#isDown) this.#log.warn({ path: this.#options.path, reason }, 'Disk tier is down')
    this.#isDown = true
    this.isUp = false
  }

  #ended(): void {
    this.#worker = null
    this.isUp = false
    // What was under way may have been carried out or not.
    for (const { isRemoval } of this.#waiting.values()) this.#owesAll ||= isRemoval
    for (const n of this.#waiting.keys()) this.#settle(n, null)
    this.#closed.resolve()
    if (this.#isClosed || this.#isUnusable) return
    this.#down('its thread has ended')
    this.#restartTimer = setTimeout(() => {
      const startsEmpty = this.#owesAll
      this.#owesAll = false
      this.#start({ startsEmpty, triesAgain: true }, () => {})
    }, RESTART_MS)
    this.#restartTimer.unref()
  }
}
