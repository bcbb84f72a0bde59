import { spawnSync } from 'node:child_process'
import { closeSync, existsSync, openSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import { createLog } from '../../src/observe/log.ts'
import type { Log, LogLevel } from '../../src/observe/log.ts'

function logTo(level: LogLevel = 'trace'): { log: Log; texts: string[]; lines: () => Record<string, unknown>[] } {
  const texts: string[] = []
  const log = createLog({ level }, { write: (line) => texts.push(line) })
  return { log, texts, lines: () => texts.map((text) => JSON.parse(text) as Record<string, unknown>) }
}

describe('a line', () => {
  it('is one JSON object with ISO time in milliseconds, level, the fields and the message', () => {
    const { log, texts, lines } = logTo()
    log.info({ file: 'config/weirgate.yaml' }, 'Configuration loaded')
    expect(texts[0]).toMatch(/^[^\n]*\n$/)
    expect(lines()[0]).toEqual({
      level: 'INFO',
      timestamp: expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/),
      file: 'config/weirgate.yaml',
      message: 'Configuration loaded',
    })
  })

  it('has the time at which it was written', () => {
    const { log, lines } = logTo()
    const beforeMs = Date.now()
    log.info({}, 'now')
    const atMs = Date.parse(String(lines()[0]?.['timestamp']))
    expect(atMs).toBeGreaterThanOrEqual(beforeMs)
    expect(atMs).toBeLessThanOrEqual(Date.now())
  })

  it.each([
    ['trace', 'TRACE'],
    ['debug', 'DEBUG'],
    ['info', 'INFO'],
    ['warn', 'WARNING'],
    ['error', 'ERROR'],
    ['fatal', 'CRITICAL'],
  ] as const)('at level %s says %s', (level, label) => {
    const { log, lines } = logTo()
    log[level]({}, 'said')
    log.line(level, ',"message":', '"said"}\n', performance.now())
    expect(lines().map((line) => line['level'])).toEqual([label, label])
  })

  it('may be text already, which comes after time and level as it is', () => {
    const { log, texts, lines } = logTo()
    log.line('info', ',"message":"first","b":', '1, "a":2}\n', performance.now())
    expect(texts[0]).toMatch(/^\{"timestamp":"[^"]+","level":"INFO","message":"first","b":1, "a":2\}\n$/)
    expect(Object.keys(lines()[0] ?? {})).toEqual(['timestamp', 'level', 'message', 'b', 'a'])
  })

  it('as text has the time of the clock, at most a millisecond old and never before that of an earlier line', () => {
    const { log, lines } = logTo()
    const written: { earliestMs: number; latestMs: number }[] = []
    const untilMs = performance.now() + 20
    for (let i = 0; performance.now() < untilMs; i++) {
      const earliestMs = Date.now() - 1
      if (i % 50 === 0) log.info({}, 'by pino')
      else
        log.line(
          i % 7 === 0 ? 'warn' : 'info',
          i % 3 === 0 ? ',"message":"a"' : ',"message":"b"',
          '}\n',
          performance.now(),
        )
      written.push({ earliestMs, latestMs: Date.now() })
    }
    let lastMs = 0
    for (const [i, line] of lines().entries()) {
      const atMs = Date.parse(String(line['timestamp']))
      expect(atMs).toBeGreaterThanOrEqual(Math.max(lastMs, written[i]?.earliestMs ?? Infinity))
      expect(atMs).toBeLessThanOrEqual(written[i]?.latestMs ?? 0)
      lastMs = atMs
    }
    expect(new Set(lines().map((line) => line['timestamp'])).size).toBeGreaterThan(5)
  })

  it('tells an Error under `error` with its message and stack', () => {
    const { log, lines } = logTo()
    log.error({ error: new TypeError('broken') }, 'Uncaught')
    expect(lines()[0]).toMatchObject({ message: 'Uncaught', error: { type: 'TypeError', message: 'broken' } })
    expect(JSON.stringify(lines()[0])).toContain('log.test.ts')
  })

  it('escapes line breaks and control bytes, so nothing can forge a second line', () => {
    const { log, texts, lines } = logTo()
    const path = '/a\r\n{"level":"INFO"}\u0000\u001b[2J'
    log.info({ path }, 'said\n')
    expect(texts).toHaveLength(1)
    // eslint-disable-next-line no-control-regex
    expect(texts[0]?.slice(0, -1)).not.toMatch(/[\u0000-\u001f]/)
    expect(lines()[0]?.['path']).toBe(path)
  })
})

describe('the level', () => {
  it('holds back what is below it', () => {
    const { log, lines } = logTo('warn')
    log.debug({}, 'no')
    log.info({}, 'no')
    log.line('info', ',"message":"no"', '}\n', performance.now())
    log.warn({}, 'yes')
    expect(lines().map((line) => line['message'])).toEqual(['yes'])
    expect(log.isEnabled('info')).toBe(false)
    expect(log.isEnabled('warn')).toBe(true)
  })

  it('may change while running', () => {
    const { log, lines } = logTo('info')
    log.setLevel('debug')
    expect(log.isEnabled('debug')).toBe(true)
    log.debug({}, 'seen')
    log.setLevel('silent')
    log.fatal({}, 'unseen')
    expect(lines().map((line) => line['message'])).toEqual(['seen'])
  })
})

describe('stdout', () => {
  const program = (body: string) => [
    '--input-type=module',
    '--eval',
    `import { createLog } from ${JSON.stringify(new URL('../../src/observe/log.ts', import.meta.url).href)}
     const log = createLog({ level: 'info' })
     ${body}`,
  ]

  it('has every line when the process ends, even without a word to the log', () => {
    const { stdout, status } = spawnSync(
      process.execPath,
      program(`for (let i = 0; i < 1000; i++) log.info({ i }, 'line'); process.exit(3)`),
    )
    expect(status).toBe(3)
    const numbers = stdout
      .toString()
      .trimEnd()
      .split('\n')
      .map((line) => (JSON.parse(line) as { i: number }).i)
    expect(numbers.toSorted((a, b) => a - b)).toEqual(Array.from({ length: 1000 }, (_, i) => i))
  })

  it('does not keep the process alive', () => {
    const { stdout, status } = spawnSync(process.execPath, program(`log.info({}, 'only')`), { timeout: 10_000 })
    expect(status).toBe(0)
    expect(stdout.toString()).toContain('"message":"only"')
  })

  it.skipIf(!existsSync('/dev/full'))('on a full disk loses lines, counted, and never the process or its end', () => {
    const full = openSync('/dev/full', 'w')
    const { status, stderr } = spawnSync(
      process.execPath,
      program(`
        const blob = 'x'.repeat(1 << 20)
        for (let i = 0; i < 12; i++) log.info({ blob }, 'line')
        setTimeout(() => {
          process.stderr.write(String(log.droppedLines))
          log.close()
        }, 50)`),
      { stdio: ['ignore', full, 'pipe'], timeout: 15_000 },
    )
    closeSync(full)
    expect(status).toBe(0)
    // Seven lines of 1 MiB and a bit fit into 8 MiB.
    expect(stderr.toString()).toMatch(/^The log cannot be written: ENOSPC: .*\n5$/)
  })
})
