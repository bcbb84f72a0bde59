// Where finished lines go: collected into chunks and written to a descriptor without ever making a request wait. A
// full disk or a reader that has stopped costs lines, counted, and nothing else; writing resumes by itself. Written
// here because pino's own destination spent 1.8 us a line on measuring its buffer (this: 0.3 us), and on a full disk its
// synchronous flush tries for ever, so the process would never exit.
//
// Lines are collected as text up to CHUNK_CHARS, then wait as bytes in a queue of at most maxBytes. One write is
// under way at a time, always of the queue's first chunk. A chunk is whole lines, so no line is torn.

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
const FLUSH_EVERY_MS = 1000
/** A full pipe is tried again soon; a full disk or a broken pipe now and then. */
const FULL_PIPE_RETRY_MS = 10
const FAULT_RETRY_MS = 1000
const LAST_FLUSH_MS = 1000

/** fd: an open descriptor, which stays open on close. maxBytes: what may wait to be written. */
export function createSink(fd: number, maxBytes: number): Sink {
  const queue: Buffer[] = []
  let queuedBytes = 0
  let collected = ''
  let droppedLines = 0
  let isWriting = false
  let retry: NodeJS.Timeout | null = null
  let isClosed = false

  const enqueue = (): void => {
    if (collected === '') return
    const chunk = Buffer.from(collected)
    collected = ''
    queue.push(chunk)
    queuedBytes += chunk.length
  }

  const written = (bytes: number): void => {
    const chunk = queue[0] as Buffer
    queuedBytes -= bytes
    if (bytes === chunk.length) queue.shift()
    else queue[0] = chunk.subarray(bytes)
  }

  const pump = (): void => {
    const chunk = queue[0]
    if (isWriting || retry !== null || isClosed || chunk === undefined) return
    isWriting = true
    write(fd, chunk, (error, bytes) => {
      isWriting = false
      if (error === null) {
        written(bytes)
        pump()
      } else {
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
    enqueue()
    const giveUpAtMs = performance.now() + LAST_FLUSH_MS
    // The first chunk may be under way in a thread, which the process awaits before it ends; writing it here as well
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
    enqueue()
    pump()
  }, FLUSH_EVERY_MS).unref()
  process.once('exit', flushSync)

  return {
    write(line) {
      if (isClosed || queuedBytes + collected.length + line.length > maxBytes) {
        droppedLines++
        return
      }
      collected += line
      if (collected.length < CHUNK_CHARS) return
      enqueue()
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
