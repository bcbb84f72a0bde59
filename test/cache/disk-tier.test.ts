import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it, onTestFinished } from 'vitest'
import { type DiskTier, createDiskTier } from '../../src/cache/stores/disk.ts'
import type { EntryParts } from '../support/entry.ts'
import { until } from '../support/gateway.ts'
import { describeTier, lasting } from './tier-contract.ts'

const MIB = 1024 ** 2
const ANY = { headers: [], claims: '' }
const KEY = 'http://a.test/'

interface Line {
  readonly level: 'info' | 'warn'
  readonly message: string
  readonly fields: Readonly<Record<string, unknown>>
}

interface TestDisk extends DiskTier {
  readonly path: string
  readonly log: readonly Line[]
  store(parts?: EntryParts): void
  bodies(key?: string): Promise<string[]>
}

const filePath = (): string => {
  const folder = mkdtempSync(join(tmpdir(), 'weirgate-disk-'))
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }))
  return join(folder, 'cache.db')
}

function create(path = filePath(), maxBytes = 64 * MIB): TestDisk {
  const log: Line[] = []
  const note = (level: Line['level']) => (fields: object, message: string) =>
    void log.push({ level, message, fields: fields as Line['fields'] })
  const tier = createDiskTier({ path, maxBytes }, Date.now, { info: note('info'), warn: note('warn') })
  onTestFinished(() => tier.close())
  return Object.assign(tier, {
    path,
    log,
    store: (parts: EntryParts = {}) => tier.write(lasting({ key: KEY, ...parts })),
    bodies: async (key = KEY) => (await tier.read(key, 'epoch', ANY)).map(({ body }) => body.toString()),
  })
}

async function open(path?: string, maxBytes?: number): Promise<TestDisk> {
  const tier = create(path, maxBytes)
  await tier.open()
  return tier
}

describeTier('the disk tier', () => {
  const path = filePath()
  return { open: () => open(path) }
})

describe('the disk tier', () => {
  it('gives back what was written, a little later or after a restart', async () => {
    const tier = await open()
    const entry = lasting({ key: KEY, body: 'kept', tags: ['one'] })
    tier.write(entry)
    expect(await tier.read(KEY, 'epoch', ANY)).toEqual([entry])
    expect(await tier.read(KEY, 'other', ANY)).toEqual([])
    await tier.close()
    const next = await open(tier.path)
    expect(await next.read(KEY, 'epoch', ANY)).toEqual([entry])
    expect(next.counts).toEqual({ hits: 1, misses: 0, bad: 0, locked: 0, failed: 0, written: 0, dropped: 0 })
    expect(next.bytes).toBeGreaterThan(0)
    expect(next.log).toEqual([])
  })

  it('leaves a body that was written to whoever has it', async () => {
    const tier = await open()
    const entry = lasting({ key: KEY, body: Buffer.alloc(100_000, 'x') })
    tier.write(entry)
    await tier.bodies()
    expect(entry.body.toString()).toBe('x'.repeat(100_000))
  })

  it('gives nothing any more that was removed before the read, done or not', async () => {
    const tier = await open()
    const rules = [{ all: true }, { tags: ['t'] }, { prefix: '/' }, { pattern: '/*' }, { urls: [KEY] }] as const
    for (const rule of rules) {
      tier.store({ tags: ['t'] })
      const before = tier.bodies()
      const done = tier.purge(rule)
      const after = tier.bodies()
      expect([await before, await done, await after]).toEqual([['body'], 1, []])
    }
    tier.store()
    tier.delete(KEY, 'other')
    expect(await tier.bodies()).toEqual(['body'])
    tier.delete(KEY, 'epoch')
    expect(await tier.bodies()).toEqual([])
  })

  it('has a purge on the disk when it says so', async () => {
    const tier = await open()
    tier.store({ tags: ['t'] })
    tier.store({ key: 'http://a.test/other' })
    expect(await tier.purge({ tags: ['t'] })).toBe(1)
    // What there is at this moment is what a kill would leave.
    const copy = `${tier.path}.copy`
    for (const suffix of ['', '-wal']) cpSync(tier.path + suffix, copy + suffix)
    const next = await open(copy)
    expect(await next.bodies()).toEqual([])
    expect(await next.bodies('http://a.test/other')).toEqual(['body'])
  })

  it('drops what does not fit while the disk is slower than what comes, and keeps nothing older in its place', async () => {
    const tier = await open()
    tier.store({ key: 'http://a.test/last', body: 'old' })
    const body = 'x'.repeat(MIB)
    for (let i = 0; i < 20; i++) tier.store({ key: `http://a.test/${i}`, body })
    tier.store({ key: 'http://a.test/last', body: 'y'.repeat(MIB) })
    expect(await tier.purge({ urls: ['/none'] })).toBe(0)
    expect(tier.counts).toMatchObject({ written: 16, dropped: 6 })
    expect(await tier.bodies('http://a.test/0')).toEqual([body])
    expect(await tier.bodies('http://a.test/last')).toEqual([])
    // And takes more again.
    tier.store({ key: 'http://a.test/last', body: 'new' })
    expect(await tier.bodies('http://a.test/last')).toEqual(['new'])
  })

  it('lets everything go in place of removals that pile up', async () => {
    const tier = await open()
    tier.store()
    expect(await tier.bodies()).toEqual(['body'])
    expect(await tier.purge({ urls: ['x'.repeat(5 * MIB)] })).toBeNull()
    expect(await tier.bodies()).toEqual([])
    await until(() => {
      tier.store({ key: 'http://a.test/other', body: 'new' })
      return tier.counts.written > 1
    }, 'entries to be taken again')
    expect(await tier.bodies('http://a.test/other')).toEqual(['new'])
    expect(await tier.bodies()).toEqual([])
  })

  it('removes what turns out to be damaged', async () => {
    const tier = await open()
    tier.store({ body: 'a body to be found in the file' })
    await tier.close()
    const bytes = readFileSync(tier.path)
    const at = bytes.indexOf('a body to be found')
    bytes.write('A', at)
    writeFileSync(tier.path, bytes)
    const next = await open(tier.path)
    expect([await next.bodies(), await next.bodies()]).toEqual([[], []])
    expect(next.counts).toMatchObject({ hits: 0, bad: 1, misses: 1 })
  })

  it('answers nothing once it is closed, and again does no harm', async () => {
    const tier = await open()
    tier.store()
    await tier.close()
    await tier.close()
    tier.store()
    tier.delete(KEY, 'epoch')
    expect(await tier.bodies()).toEqual([])
    expect(tier.isUp).toBe(false)
  })
})

describe('a file that the disk tier cannot use', () => {
  const refusal = async (tier: DiskTier): Promise<string> =>
    tier.open().then(
      () => 'opened',
      (error: unknown) => (error instanceof Error ? error.message : ''),
    )

  it('is refused at the start: no folder', async () => {
    const tier = create(join(filePath(), 'none', 'cache.db'))
    expect(await refusal(tier)).toBe(
      `cache.disk.path: cannot use ${tier.path}: its folder does not exist; make it, or name another`,
    )
    expect([tier.isUp, tier.log]).toEqual([false, []])
  })

  it('is refused at the start: a folder', async () => {
    const path = filePath()
    mkdirSync(path)
    expect(await refusal(create(path))).toBe(`cache.disk.path: cannot use ${path}: it is no plain file; name another`)
  })

  it('is refused at the start: another gateway has it', async () => {
    const first = await open()
    expect(await refusal(create(first.path))).toContain('another gateway has it open')
    first.store()
    expect(await first.bodies()).toEqual(['body'])
  })
})

describe('trouble with the disk tier’s file', () => {
  it('is told once and passes: the file is removed', async () => {
    const tier = await open()
    tier.store()
    expect(await tier.bodies()).toEqual(['body'])
    for (const name of readdirSync(join(tier.path, '..'))) rmSync(join(tier.path, '..', name))
    expect(await tier.bodies()).toEqual([])
    expect(await tier.bodies()).toEqual([])
    expect(tier.isUp).toBe(false)
    await until(() => tier.isUp, 'the tier to come back')
    expect(existsSync(tier.path)).toBe(true)
    expect(tier.log.map(({ level, message }) => `${level} ${message}`)).toEqual([
      'warn Disk tier is down',
      'info Disk tier is up',
    ])
    expect(tier.log[0]?.fields).toEqual({ path: tier.path, reason: 'it has been removed or replaced' })
    tier.store({ body: 'new' })
    expect(await tier.bodies()).toEqual(['new'])
    expect(tier.counts.failed).toBe(2)
  })

  it.each([
    ['a read', (tier: TestDisk) => tier.bodies()],
    ['a purge', (tier: TestDisk) => tier.purge({ all: true })],
  ])('brings nothing back that was purged: %s finds an earlier file in its place', async (_what, meet) => {
    const earlier = await open()
    earlier.store({ body: 'earlier' })
    await earlier.close()
    const tier = await open()
    tier.store()
    expect(await tier.bodies()).toEqual(['body'])
    cpSync(earlier.path, `${tier.path}.new`)
    renameSync(`${tier.path}.new`, tier.path)
    await meet(tier)
    expect(tier.isUp).toBe(false)
    await until(() => tier.isUp, 'the tier to come back')
    expect(await tier.bodies()).toEqual([])
  })
})
