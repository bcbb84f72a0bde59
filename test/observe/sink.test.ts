import { execFileSync } from 'node:child_process'
import { closeSync, constants, mkdtempSync, openSync, readFileSync, readSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { createSink } from '../../src/observe/sink.ts'

let folder: string
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'weirgate-sink-'))
})
afterEach(() => rmSync(folder, { recursive: true }))

const MIB = 1024 ** 2
/** What a page holds at least when it leaves: 13 chunks. */
const PAGE_BYTES = 13 * 16_384
const lines = (count: number) => Array.from({ length: count }, (_, i) => `line ${i} ${'x'.repeat(90)}\n`)

describe('a file', () => {
  it('gets whole pages while the process runs, and the rest on flush', async () => {
    const path = join(folder, 'log')
    const fd = openSync(path, 'a')
    const sink = createSink(fd, 8 * MIB)
    const all = lines(10_000)
    for (const line of all) sink.write(line)
    const text = () => readFileSync(path, 'utf8')
    // 10,000 lines are some 980 KiB: four pages leave by themselves, one after the other and in order.
    await expect.poll(() => text().length).toBeGreaterThanOrEqual(4 * PAGE_BYTES)
    expect(all.join('').startsWith(text())).toBe(true)
    expect(text()).not.toBe(all.join(''))
    sink.flushSync()
    expect(text()).toBe(all.join(''))
    sink.close()
    closeSync(fd)
  })

  it('gets every line once and whole, whatever its letters and its length, over many pages and flushes', async () => {
    const path = join(folder, 'log')
    const fd = openSync(path, 'a')
    const sink = createSink(fd, 64 * MIB)
    const letters = ['x', 'é', '→', '😀', '\ud800']
    const all: string[] = []
    for (let i = 0; i < 3000; i++) {
      // Now and then one that is longer than a page.
      const line = `${i} ${(letters[i % 5] as string).repeat(i % 1000 === 999 ? 200_000 : (i * 7919) % 2000)}`
      sink.write(`${line}\n`)
      all.push(Buffer.from(line).toString())
      if (i % 500 === 0) sink.flushSync()
      // A write is under way, another page is being filled, and pages come back.
      if (i % 100 === 0) await new Promise(setImmediate)
    }
    sink.close()
    // What is written on flush may come before what is under way.
    const written = () => readFileSync(path, 'utf8').split('\n').slice(0, -1)
    await expect.poll(() => written().length).toBe(all.length)
    expect(written().toSorted()).toEqual(all.toSorted())
    expect(sink.droppedLines).toBe(0)
    closeSync(fd)
  })

  it('gets the rest within seconds without a flush', async () => {
    const path = join(folder, 'log')
    const fd = openSync(path, 'a')
    const sink = createSink(fd, 8 * MIB)
    sink.write('quiet\n')
    await expect.poll(() => readFileSync(path, 'utf8'), { timeout: 5000 }).toBe('quiet\n')
    sink.close()
    closeSync(fd)
  })

  it('gets nothing after close, and what comes counts as dropped', () => {
    const path = join(folder, 'log')
    const fd = openSync(path, 'a')
    const sink = createSink(fd, 8 * MIB)
    sink.write('before\n')
    sink.close()
    sink.close()
    sink.write('after\n')
    expect(readFileSync(path, 'utf8')).toBe('before\n')
    expect(sink.droppedLines).toBe(1)
    closeSync(fd)
  })
})

describe('a pipe whose reader has gone', () => {
  it('is told of once, and once more when it happens again', async () => {
    const path = join(folder, 'pipe')
    execFileSync('mkfifo', [path])
    const reader = () => openSync(path, constants.O_RDONLY | constants.O_NONBLOCK)
    let reading = reader()
    const pipe = openSync(path, constants.O_WRONLY | constants.O_NONBLOCK)
    const faults: (string | undefined)[] = []
    const sink = createSink(pipe, 8 * MIB, (fault) => void faults.push((fault as NodeJS.ErrnoException).code))
    const page = 'x'.repeat(PAGE_BYTES * 2)
    const leave = async (known: number) => {
      closeSync(reading)
      sink.write(`${page}\n`)
      await expect.poll(() => faults.length, { timeout: 5000 }).toBe(known + 1)
    }
    await leave(0)
    // Longer than it takes to try again.
    await new Promise((resolve) => setTimeout(resolve, 2500))
    expect(faults).toEqual(['EPIPE'])
    reading = reader()
    const buffer = Buffer.alloc(MIB)
    let got = 0
    await expect
      .poll(
        () => {
          try {
            got += readSync(reading, buffer)
          } catch {
            // Nothing in it now.
          }
          return got
        },
        { interval: 5, timeout: 10_000 },
      )
      .toBe(page.length + 1)
    await leave(1)
    expect(faults).toEqual(['EPIPE', 'EPIPE'])
    sink.close()
    closeSync(pipe)
  })
})

describe('a pipe that nobody reads', () => {
  let pipe: number
  beforeEach(() => {
    execFileSync('mkfifo', [join(folder, 'pipe')])
    pipe = openSync(join(folder, 'pipe'), constants.O_RDWR | constants.O_NONBLOCK)
  })
  afterEach(() => closeSync(pipe))

  /** What is in the pipe now. */
  function read(): string {
    const buffer = Buffer.alloc(MIB)
    try {
      return buffer.toString('utf8', 0, readSync(pipe, buffer))
    } catch {
      return ''
    }
  }

  it('costs no line when it is read again before the bound, and no line is torn', async () => {
    const sink = createSink(pipe, 8 * MIB)
    const all = lines(20_000).join('')
    for (const line of lines(20_000)) sink.write(line)
    let got = ''
    await expect.poll(() => (got += read()).length, { interval: 5, timeout: 15_000 }).toBe(all.length)
    expect(got).toBe(all)
    expect(sink.droppedLines).toBe(0)
    sink.close()
  })

  it('costs the lines that find no room, counted, and later lines pass when it is read', async () => {
    const sink = createSink(pipe, 64 * 1024)
    const long = `${'x'.repeat(1023)}\n`
    for (let i = 0; i < 100; i++) sink.write(long)
    expect(sink.droppedLines).toBe(100 - 64)
    let got = ''
    await expect.poll(() => (got += read()).length, { timeout: 5000 }).toBe(64 * 1024)
    // That the reader has all of it is known a moment later to who has written it.
    await expect
      .poll(() => {
        const before = sink.droppedLines
        sink.write('after\n')
        return sink.droppedLines - before
      })
      .toBe(0)
    sink.flushSync()
    expect(read()).toBe('after\n')
    sink.close()
  })

  it('holds up the end of the process for little more than a second', () => {
    const sink = createSink(pipe, 8 * MIB)
    for (const line of lines(20_000)) sink.write(line)
    const startedAtMs = performance.now()
    sink.close()
    expect(performance.now() - startedAtMs).toBeLessThan(1500)
  })
})
