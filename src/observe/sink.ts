// Where finished lines go: collected and written to a descriptor without ever making a request wait. A full disk or a
// reader that has stopped costs lines, counted, and nothing else; writing resumes by itself, and a fault is told once. Written here because pino's
// own destination spent 1.8 us a line on measuring its buffer, and on a full disk its synchronous flush tries for ever, so
// the process would never exit.
//
// Lines are collected as text up to CHUNK_CHARS, encoded into a page, and written a page at a time: each call to encode or
// to write costs much the same for one line as for many (a write through a thread 20 us). A page leaves when it is full or
// a second has passed, and is used again once it is written. What waits, as text or as bytes, is at most maxBytes.
//
// One write is under way at a time, always of the queue's first part. A part is whole lines, so no line is torn.

import { write, writeSync } from 'node:fs'

export interface Sink {
  /** Takes one line with its line break, or counts it as dropped. Never waits and never throws. */
  write(line: string): void
  /** Lines given up since start. */
  readonly droppedLines: number
  /** Writes what is collected and waits for it, at most a second; for the end of the process. */
  flushSync(): void
  /** Flushes and stops the timers. */
  close(): void
}

const CHUNK_CHARS = 16_384
const PAGE_BYTES = 256 * 1024
/** UTF-8 of one UTF-16 unit. */
const MAX_BYTES_PER_CHAR = 3
const FLUSH_EVERY_MS = 1000
/** A full pipe is tried again soon; a full disk or a broken pipe now and then. */
const FULL_PIPE_RETRY_MS = 10
const FAULT_RETRY_MS = 1000
const LAST_FLUSH_MS = 1000

/** fd: an open descriptor, which stays open on close. maxBytes: what may wait to be written. tell: hears why lines cannot be
 *  written, once until they can again; a pipe that is full is not meant. */
export function createSink(fd: number, maxBytes: number, tell: (fault: Error) => void = () => {}): Sink {
  let collected = ''
  let page = Buffer.allocUnsafeSlow(PAGE_BYTES)
  let previousPage = page
  /** What of the page is encoded, and not in the queue yet. */
  let start = 0
  let end = 0
  /** Pieces of pages; the first may be under way. */
  const queue: Buffer[] = []
  /** In the page and the queue. */
  let encodedBytes = 0
  let droppedLines = 0
  let isWriting = false
  let isFaulty = false
  let retry: NodeJS.Timeout | null = null
  let isClosed = false

  const encode = (): void => {
    const mostBytes = collected.length * MAX_BYTES_PER_CHAR
    if (end + mostBytes > PAGE_BYTES) turnPage()
    if (mostBytes <= PAGE_BYTES) {
      const bytes = page.write(collected, end)
      end += bytes
      encodedBytes += bytes
    } else {
      const part = Buffer.from(collected)
      queue.push(part)
      encodedBytes += part.length
    }
    collected = ''
  }

  const enqueue = (): void => {
    if (end > start) queue.push(page.subarray(start, end))
    start = end
  }

  const turnPage = (): void => {
    enqueue()
    const full = page
    if (isQueued(full)) page = isQueued(previousPage) ? Buffer.allocUnsafeSlow(PAGE_BYTES) : previousPage
    previousPage = full
    start = end = 0
  }

  const isQueued = ({ buffer }: Buffer): boolean => queue.some((part) => part.buffer === buffer)

  const written = (bytes: number): void => {
    const part = queue[0] as Buffer
    encodedBytes -= bytes
    if (bytes === part.length) queue.shift()
    else queue[0] = part.subarray(bytes)
  }

  const pump = (): void => {
    const part = queue[0]
    if (isWriting || retry !== null || isClosed || part === undefined) return
    isWriting = true
    write(fd, part, (error, bytes) => {
      isWriting = false
      if (error === null) {
        isFaulty = false
        written(bytes)
        pump()
      } else {
        if (!isFaulty && !isFullPipe(error)) tell(error)
        isFaulty ||= !isFullPipe(error)
        retry = setTimeout(
          () => {
            retry = null
            pump()
          },
          isFullPipe(error) ? FULL_PIPE_RETRY_MS : FAULT_RETRY_MS,
        ).unref()
      }
    })
  }

  const flushSync = (): void => {
    encode()
    enqueue()
    const giveUpAtMs = performance.now() + LAST_FLUSH_MS
    // The first part may be under way in a thread, which the process awaits before it ends; writing it here as well
    // would double its lines.
    const inFlight = isWriting ? queue.shift() : undefined
    try {
      while (queue.length > 0) {
        try {
          written(writeSync(fd, queue[0] as Buffer))
        } catch (error) {
          if (!isFullPipe(error) || performance.now() > giveUpAtMs) return
          Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, FULL_PIPE_RETRY_MS)
        }
      }
    } finally {
      if (inFlight !== undefined) queue.unshift(inFlight)
    }
  }

  const timer = setInterval(() => {
    encode()
    enqueue()
    pump()
  }, FLUSH_EVERY_MS).unref()
  process.once('exit', flushSync)

  return {
    write(line) {
      if (isClosed || encodedBytes + collected.length + line.length > maxBytes) {
        droppedLines++
        return
      }
      collected += line
      if (collected.length < CHUNK_CHARS) return
      encode()
      pump()
    },
    get droppedLines() {
      return droppedLines
    },
    flushSync,
    close() {
      if (isClosed) return
      flushSync()
      isClosed = true
      clearInterval(timer)
      if (retry !== null) clearTimeout(retry)
      process.removeListener('exit', flushSync)
    },
  }
}

const isFullPipe = (error: unknown): boolean =>
  error instanceof Error && 'code' in error && (error.code === 'EAGAIN' || error.code === 'EBUSY')
