// The disk tier's thread: carries out orders in the order in which they come, many in one transaction, and reports. All
// that can go wrong with the disk is met here.
//
// In trouble (disk full, file gone or broken) the file is closed, and opened again after a while; meanwhile reads find
// nothing and writes are given up. A removal that cannot be carried out takes the whole file with it: rather nothing from
// the disk than what should be gone.

import { type MessagePort, parentPort, workerData } from 'node:worker_threads'
import type { PurgeRule } from '../purge-rule.ts'
import type { Selecting } from '../tier.ts'
import type { DiskDatabase, DiskRecord, Found } from './disk-database.ts'
import { type DiskFile, UnusableFile, isDamage, openFile, removeFiles } from './disk-file.ts'

export interface DiskSetup {
  readonly path: string
  readonly maxBytes: number
  /** True where what is there must not be used. */
  readonly startsEmpty: boolean
  /** False where a file that cannot be used is the end of it. */
  readonly triesAgain: boolean
}

/** nowMs: wall clock. */
export type DiskOrder = { readonly n: number; readonly nowMs: number } & DiskTask

export type DiskTask =
  | { readonly kind: 'read'; readonly key: string; readonly epoch: string; readonly by: Selecting }
  | { readonly kind: 'write'; readonly record: DiskRecord }
  | { readonly kind: 'delete'; readonly key: string; readonly epoch: string }
  | { readonly kind: 'purge'; readonly rule: PurgeRule }
  /** What a read gave, and was no entry. */
  | { readonly kind: 'remove'; readonly id: number }
  | { readonly kind: 'close' }

/** What became of an order. */
export interface DiskResult {
  readonly n: number
  /** It was carried out; a read that finds nothing is. */
  readonly done: boolean
  readonly found: Found | null
  /** Entries that a purge has named. */
  readonly taken: number
}

export type DiskReport =
  | { readonly kind: 'results'; readonly results: readonly DiskResult[]; readonly usedBytes: number }
  /** setAside: where a damaged file has been put. */
  | { readonly kind: 'up'; readonly usedBytes: number; readonly setAside: string | null }
  /** reason: in words. isFinal: the thread ends. */
  | { readonly kind: 'down'; readonly reason: string; readonly isFinal: boolean }
  | { readonly kind: 'closed' }

/** Orders in one transaction. */
const MAX_BATCH = 64
/** Before the file is opened again: doubled with each attempt, up to the second. */
const RETRY_MS = 1000
const MAX_RETRY_MS = 60_000
/** Trouble so soon after the file was opened is still the same trouble. */
const STEADY_MS = 60_000
const TIDY_MS = 30_000

const { path, maxBytes, startsEmpty, triesAgain } = workerData as DiskSetup
const port = parentPort as MessagePort

let file: DiskFile | null = null
/** What is in the file, while it is not open: what may be used; what should be gone; or what somebody has put there. */
let contents: 'good' | 'spoilt' | 'strange' = startsEmpty ? 'spoilt' : 'good'
let waiting: DiskOrder[] = []
let isScheduled = false
let retryMs = RETRY_MS
let retryTimer: NodeJS.Timeout | undefined
let openedAtMs = 0

const report = (message: DiskReport, transfer: ArrayBuffer[] = []): void => port.postMessage(message, transfer)

// ---- the file ----

function open(isFirst: boolean): void {
  try {
    if (contents !== 'good') openFile(path, maxBytes).discard(false)
    contents = 'good'
    file = openFile(path, maxBytes)
    openedAtMs = performance.now()
    report({ kind: 'up', usedBytes: file.database.usedBytes, setAside: file.setAside })
  } catch (error) {
    const isFinal = isFirst && !triesAgain
    report({ kind: 'down', reason: inWords(error), isFinal })
    if (isFinal) port.close()
    else openLater()
  }
}

function openLater(): void {
  retryTimer = setTimeout(() => open(false), retryMs)
  retryMs = Math.min(retryMs * 2, MAX_RETRY_MS)
}

/** Lets go of a file that makes trouble. */
function giveUp(failing: DiskFile, error: unknown): void {
  file = null
  if (performance.now() - openedAtMs > STEADY_MS) retryMs = RETRY_MS
  const isDamaged = isDamage(error)
  try {
    if (isDamaged || contents === 'spoilt') {
      failing.discard(isDamaged)
      contents = 'good'
    } else failing.close()
  } catch {
    // It is as it was, and so is what is known of it.
  }
  const reason = isDamaged ? `${inWords(error)}; it is set aside as ${path}.damaged` : inWords(error)
  report({ kind: 'down', reason, isFinal: false })
  openLater()
}

/** All goes in place of what should, while the file is not open. False where it cannot. */
function removeAll(): boolean {
  // What is there instead of ours is put away once it turns out to be a cache.
  if (contents === 'strange') return true
  contents = 'spoilt'
  try {
    removeFiles(path)
    contents = 'good'
  } catch {
    // Tried again when the file is opened.
  }
  return contents === 'good'
}

/** Runs work on the file, as a whole or not at all; null where it cannot. */
function attempt<T>(work: (database: DiskDatabase) => T, hasRemovals: boolean): T | null {
  const opened = file
  if (opened === null) return null
  try {
    if (opened.isThere()) return opened.database.transaction(() => work(opened.database))
    // What may be there instead has not seen the latest purges.
    contents = 'strange'
    giveUp(opened, new UnusableFile('it has been removed or replaced'))
  } catch (error) {
    if (hasRemovals) contents = 'spoilt'
    giveUp(opened, error)
  }
  return null
}

function tidy(): void {
  if (attempt((database) => database.tidy(Date.now()), false) === true) setImmediate(tidy)
}

// ---- the orders ----

function take(order: DiskOrder): void {
  waiting.push(order)
  if (isScheduled) return
  isScheduled = true
  setImmediate(work)
}

function work(): void {
  const batch = waiting.slice(0, MAX_BATCH)
  waiting = waiting.slice(MAX_BATCH)
  isScheduled = waiting.length > 0
  if (isScheduled) setImmediate(work)
  const results = carryOut(batch)
  const transfer = results.flatMap(({ found }) => (found === null ? [] : [found.bytes.buffer as ArrayBuffer]))
  report({ kind: 'results', results, usedBytes: file?.database.usedBytes ?? 0 }, transfer)
  if (batch.at(-1)?.kind === 'close') close()
}

function carryOut(batch: readonly DiskOrder[]): readonly DiskResult[] {
  const hasRemovals = batch.some(isRemoval)
  const results = attempt((database) => batch.map((order) => resultOf(database, order)), hasRemovals)
  if (results !== null) return results
  const isGone = hasRemovals && removeAll()
  return batch.map((order) => ({ n: order.n, done: isRemoval(order) && isGone, found: null, taken: 0 }))
}

function resultOf(database: DiskDatabase, order: DiskOrder): DiskResult {
  const { n, nowMs } = order
  const done = { n, done: true, found: null, taken: 0 }
  switch (order.kind) {
    case 'read':
      return { ...done, found: database.read(order.key, order.epoch, order.by, nowMs) }
    case 'write':
      return { ...done, done: database.write(order.record, nowMs) }
    case 'delete':
      database.delete(order.key, order.epoch)
      return done
    case 'purge':
      return { ...done, taken: database.purge(order.rule, nowMs) }
    case 'remove':
      database.remove(order.id)
      return done
    case 'close':
      return done
    default:
      return order satisfies never
  }
}

const isRemoval = ({ kind }: DiskOrder): boolean => kind === 'delete' || kind === 'purge'

function close(): void {
  clearInterval(tidying)
  clearTimeout(retryTimer)
  file?.close()
  file = null
  report({ kind: 'closed' })
  port.close()
}

/** What the system's refusals mean to somebody who has just written the path down. */
const IN_WORDS: Readonly<Record<string, string>> = {
  ENOENT: 'its folder does not exist; make it, or name another',
  ENOTDIR: 'what should be its folder is a file; name another',
  EACCES: 'this user may not write there; name another place, or change the rights',
  EPERM: 'this user may not write there; name another place, or change the rights',
  EROFS: 'it is on a file system that is read-only; name another place',
}

function inWords(error: unknown): string {
  const code = error instanceof Error && 'code' in error ? String(error.code) : ''
  return IN_WORDS[code] ?? (error instanceof Error ? error.message : String(error))
}

const tidying = setInterval(tidy, TIDY_MS).unref()
port.on('message', take)
open(true)
tidy()
