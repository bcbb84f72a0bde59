import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { describe, expect, it, onTestFinished } from 'vitest'
import { decodeEntry } from '../../src/cache/encoding.ts'
import type { StoredResponse } from '../../src/cache/entry.ts'
import type { PurgeRule } from '../../src/cache/purge-rule.ts'
import { recordOf } from '../../src/cache/stores/disk-database.ts'
import { type DiskFile, UnusableFile, openFile } from '../../src/cache/stores/disk-file.ts'
import { type EntryParts, entryOf } from '../support/entry.ts'

const MIB = 1024 ** 2
const NOW_MS = 1000
const ANY = { headers: [], claims: '' }

const folder = (): string => {
  const path = mkdtempSync(join(tmpdir(), 'weirgate-disk-'))
  onTestFinished(() => rmSync(path, { recursive: true, force: true }))
  return path
}

const filePath = (): string => join(folder(), 'cache.db')

function open(
  path = filePath(),
  maxBytes = 64 * MIB,
): DiskFile & { write(parts: EntryParts): boolean; bodies(key: string): string[] } {
  const file = openFile(path, maxBytes)
  let isOpen = true
  const end = (work: () => void) => () => {
    if (isOpen) work()
    isOpen = false
  }
  const close = end(() => file.close())
  onTestFinished(close)
  const { database } = file
  return {
    ...file,
    close,
    write: (parts) => database.transaction(() => database.write(recordOf(entryOf(parts)), NOW_MS)),
    bodies: (key) => bodies(file, key),
  }
}

/** What a request without fields is given. */
function bodies({ database }: DiskFile, key: string, headers: readonly string[] = [], nowMs = NOW_MS): string[] {
  const found = database.transaction(() => database.read(key, 'epoch', { headers, claims: '' }, nowMs))
  const entry = found === null ? null : decodeEntry(Buffer.from(found.bytes))
  return entry === null ? [] : [entry.body.toString()]
}

const purge = ({ database }: DiskFile, rule: PurgeRule, nowMs = NOW_MS): number =>
  database.transaction(() => database.purge(rule, nowMs))

describe('the disk tier’s tables', () => {
  it('give back an entry as it was written', () => {
    const { database } = open()
    const entry = entryOf({ key: 'http://a.test/x', tags: ['one'], vary: ['accept'], request: ['Accept', 'text/html'] })
    database.transaction(() => database.write(recordOf(entry), NOW_MS))
    const by = { headers: ['Accept', 'text/html'], claims: '' }
    const found = database.transaction(() => database.read('http://a.test/x', 'epoch', by, NOW_MS))
    expect(decodeEntry(Buffer.from(found?.bytes ?? []))).toEqual(entry)
    expect(database.read('http://a.test/x', 'other', by, NOW_MS)).toBeNull()
    expect(database.read('http://a.test/x', 'epoch', ANY, NOW_MS)).toBeNull()
    expect(database.read('http://a.test/y', 'epoch', by, NOW_MS)).toBeNull()
  })

  it('put an entry in the place of those that the same requests select, and of no others', () => {
    const file = open()
    const key = 'http://a.test/'
    for (const [body, language] of [
      ['old', 'en'],
      ['other', 'de'],
      ['new', 'en'],
    ] as const) {
      file.write({ key, body, vary: ['accept-language'], request: ['Accept-Language', language] })
    }
    expect(bodies(file, key, ['accept-language', 'en'])).toEqual(['new'])
    expect(bodies(file, key, ['accept-language', 'de'])).toEqual(['other'])
    expect(purge(file, { all: true })).toBe(2)
  })

  it('keep 16 variants of a key, the latest', () => {
    const file = open()
    for (let i = 0; i < 20; i++)
      file.write({ key: 'http://a.test/', body: `${i}`, vary: ['a'], request: ['a', `${i}`] })
    expect(bodies(file, 'http://a.test/', ['a', '3'])).toEqual([])
    expect(bodies(file, 'http://a.test/', ['a', '4'])).toEqual(['4'])
    expect(purge(file, { all: true })).toBe(16)
  })

  it('give what is fresh before what is stale', () => {
    const { database, ...file } = open()
    const store = (body: string, vary: readonly string[], freshUntilMs: number) => {
      const entry = { ...entryOf({ key: 'http://a.test/', body, vary }), freshUntilMs }
      database.transaction(() => database.write(recordOf(entry), NOW_MS))
    }
    store('fresh', ['a', 'b'], 60_000)
    database.transaction(() => {
      const entry = { ...entryOf({ key: 'http://a.test/', body: 'stale', vary: ['a'], request: ['a', '1'] }) }
      database.write(recordOf(entry), NOW_MS)
    })
    expect(bodies({ database, ...file }, 'http://a.test/')).toEqual(['fresh'])
  })

  it('do not give, or keep, what has ended', () => {
    const file = open()
    file.write({ key: 'http://a.test/', body: 'ends at 60 s' })
    expect(bodies(file, 'http://a.test/', [], 59_999)).toEqual(['ends at 60 s'])
    expect(bodies(file, 'http://a.test/', [], 60_000)).toEqual([])
    const { database } = file
    database.transaction(() => database.tidy(60_000))
    expect(bodies(file, 'http://a.test/', [], 0)).toEqual([])
    // What has ended takes the place of what has not, all the same.
    file.write({ key: 'http://a.test/', body: 'before' })
    const ended = {
      ...entryOf({ key: 'http://a.test/' }),
      freshUntilMs: 0,
      staleWhileRevalidateUntilMs: 0,
      staleIfErrorUntilMs: 0,
    }
    expect(database.transaction(() => database.write(recordOf(ended), NOW_MS))).toBe(false)
    expect(bodies(file, 'http://a.test/')).toEqual([])
  })

  it('do nothing by halves', () => {
    const file = open()
    const { database } = file
    expect(() =>
      database.transaction(() => {
        database.write(recordOf(entryOf({ key: 'http://a.test/' })), NOW_MS)
        throw new Error('in the middle')
      }),
    ).toThrow('in the middle')
    expect(file.bodies('http://a.test/')).toEqual([])
  })
})

describe('a purge on disk', () => {
  const KEYS = [
    'http://a.test/x',
    'https://a.test/x',
    'http://a.test/x\nPOST 1234',
    'http://a.test/x?y',
    'http://a.test/x/y',
    'http://b.test/x',
    'http://b.test/other',
  ]

  it.each<[PurgeRule, readonly number[]]>([
    [{ urls: ['http://a.test/x'] }, [0, 2]],
    [{ urls: ['//a.test/x'] }, [0, 1, 2]],
    [{ urls: ['/x'] }, [0, 1, 2, 5]],
    [{ urls: ['http://a.test/x', '/other'] }, [0, 2, 6]],
    [{ prefix: '//a.test/x' }, [0, 1, 2, 3, 4]],
    [{ prefix: '/x' }, [0, 1, 2, 3, 4, 5]],
    [{ pattern: '//a.test/*y' }, [3, 4]],
    [{ pattern: '//*/x' }, [0, 1, 2, 5]],
    [{ pattern: '/*other' }, [6]],
    [{ tags: ['3', '4', 'none'] }, [3, 4]],
    [{ urls: ['http://b.test/x'], tags: ['0'] }, [0, 5]],
    [{ all: true }, [0, 1, 2, 3, 4, 5, 6]],
    [{ urls: [] }, []],
  ])('%j takes what it names and nothing else', (rule, named) => {
    const path = filePath()
    const file = open(path)
    for (const [i, key] of KEYS.entries()) file.write({ key, tags: [`${i}`, 'each'] })
    expect(purge(file, rule)).toBe(named.length)
    const left = () => KEYS.filter((key) => file.bodies(key).length > 0)
    expect(left()).toEqual(KEYS.filter((_, i) => !named.includes(i)))
    // Nor is a tag left behind that would find another.
    expect(purge(file, { tags: ['each'] })).toBe(KEYS.length - named.length)
  })

  it('takes entries of every epoch', () => {
    const file = open()
    const { database } = file
    for (const epoch of ['old', 'new']) {
      database.transaction(() => database.write(recordOf({ ...entryOf({ key: 'http://a.test/' }), epoch }), NOW_MS))
    }
    expect(purge(file, { urls: ['//a.test/'] })).toBe(2)
  })

  it.each<PurgeRule>([{ all: true }, { tags: ['soft'] }, { prefix: '/' }])('%j, soft, makes it stale', (rule) => {
    const path = filePath()
    const file = open(path)
    const { database } = file
    const stored = { ...entryOf({ key: 'http://a.test/', tags: ['soft'] }), staleIfErrorUntilMs: 90_000 }
    database.transaction(() => database.write(recordOf(stored), NOW_MS))
    purge(file, { ...rule, soft: true }, 10_000)
    const read = (nowMs: number): StoredResponse | null => {
      const found = database.transaction(() => database.read('http://a.test/', 'epoch', ANY, nowMs))
      return found === null ? null : decodeEntry(Buffer.from(found.bytes))
    }
    expect(read(39_999)).toMatchObject({ freshUntilMs: 10_000, staleIfErrorUntilMs: 40_000 })
    expect(read(40_000)).toBeNull()
  })
})

describe('the bound on the file', () => {
  const body = 'x'.repeat(100_000)

  it('lets go of what was of use longest ago', () => {
    const path = filePath()
    const { database, ...file } = open(path, 4 * MIB)
    const write = (i: number) => {
      const entry = { ...entryOf({ key: `http://a.test/${i}`, body, tags: ['all'] }), freshUntilMs: 1e12 }
      expect(database.transaction(() => database.write(recordOf(entry), i * 60_000))).toBe(true)
    }
    const has = (i: number, nowMs: number) => bodies({ database, ...file }, `http://a.test/${i}`, [], nowMs).length > 0
    for (let i = 1; i <= 100; i++) {
      write(i)
      expect(has(1, i * 60_000 + 1)).toBe(true)
      expect(database.usedBytes).toBeLessThanOrEqual(4 * MIB)
    }
    expect([2, 3, 40].map((i) => has(i, 1e9))).toEqual([false, false, false])
    expect([98, 99, 100].map((i) => has(i, 1e9))).toEqual([true, true, true])
    file.close()
    expect(statSync(path).size).toBeLessThanOrEqual(4 * MIB)
  })

  it('prefers what has ended', () => {
    const file = open(filePath(), 4 * MIB)
    const { database } = file
    const write = (key: string, endsAtMs: number, nowMs: number) => {
      const entry = {
        ...entryOf({ key, body }),
        freshUntilMs: endsAtMs,
        staleWhileRevalidateUntilMs: 0,
        staleIfErrorUntilMs: 0,
      }
      database.transaction(() => database.write(recordOf(entry), nowMs))
    }
    write('http://a.test/kept', 1e12, 1)
    for (let i = 0; i < 30; i++) write(`http://a.test/${i}`, 5000, 2)
    for (let i = 30; i < 50; i++) write(`http://a.test/${i}`, 1e12, 6000)
    expect(bodies(file, 'http://a.test/kept', [], 6000)).toEqual([body])
  })

  it('keeps no entry of more than half of it', () => {
    const file = open(filePath(), MIB)
    expect(file.write({ key: 'http://a.test/', body: 'x'.repeat(MIB / 2) })).toBe(false)
    expect(file.write({ key: 'http://a.test/', body: 'x'.repeat(MIB / 3) })).toBe(true)
  })

  it('holds for a file that was allowed more before, and gives the rest back', () => {
    const path = filePath()
    const before = open(path)
    for (let i = 0; i < 100; i++) before.write({ key: `http://a.test/${i}`, body })
    before.close()
    expect(statSync(path).size).toBeGreaterThan(9 * MIB)
    const after = open(path, 4 * MIB)
    while (after.database.transaction(() => after.database.tidy(NOW_MS))) continue
    expect(after.bodies('http://a.test/99')).toEqual([body])
    after.close()
    expect(statSync(path).size).toBeLessThanOrEqual(4 * MIB)
  })
})

describe('the file of the disk tier', () => {
  it('keeps what is in it', () => {
    const path = filePath()
    const first = open(path)
    first.write({ key: 'http://a.test/', body: 'kept' })
    first.close()
    expect(open(path).bodies('http://a.test/')).toEqual(['kept'])
  })

  it('is for nobody else to read, even where it was', () => {
    const path = filePath()
    writeFileSync(path, '', { mode: 0o644 })
    open(path).write({ key: 'http://a.test/' })
    for (const suffix of ['', '-wal']) expect(statSync(path + suffix).mode & 0o777).toBe(0o600)
  })

  it('is set aside where it is no database, and starts empty', () => {
    const path = filePath()
    const garbage = 'this is no database, however long it may be. '.repeat(200)
    writeFileSync(path, garbage)
    const file = open(path)
    expect(file.setAside).toBe(`${path}.damaged`)
    expect(readFileSync(`${path}.damaged`, 'utf8')).toBe(garbage)
    file.write({ key: 'http://a.test/', body: 'new' })
    expect(file.bodies('http://a.test/')).toEqual(['new'])
  })

  it('is left alone where it is the database of another program', () => {
    const path = filePath()
    const other = new DatabaseSync(path)
    other.exec("CREATE TABLE precious (text TEXT); INSERT INTO precious VALUES ('kept')")
    other.close()
    const before = readFileSync(path)
    expect(() => openFile(path, MIB)).toThrow(UnusableFile)
    expect(readFileSync(path).equals(before)).toBe(true)
  })

  it('starts anew where it is of another version', () => {
    const path = filePath()
    const first = open(path)
    first.write({ key: 'http://a.test/' })
    first.close()
    const older = new DatabaseSync(path)
    older.exec('PRAGMA user_version = 99; DROP TABLE contents')
    older.close()
    const file = open(path)
    expect(file.bodies('http://a.test/')).toEqual([])
    expect(file.setAside).toBeNull()
    expect(file.write({ key: 'http://a.test/' })).toBe(true)
  })

  it('has one user at a time', () => {
    const path = filePath()
    const first = open(path)
    expect(() => openFile(path, MIB)).toThrow('another gateway has it open')
    first.write({ key: 'http://a.test/', body: 'mine' })
    expect(first.bodies('http://a.test/')).toEqual(['mine'])
    first.close()
    expect(open(path).bodies('http://a.test/')).toEqual(['mine'])
  })

  it('gives whole entries or none, whatever bytes of it are broken', () => {
    const path = filePath()
    const before = open(path)
    const texts = Array.from({ length: 50 }, (_, i) => `${i} `.repeat(1000))
    for (const [i, body] of texts.entries()) before.write({ key: `http://a.test/${i}`, body })
    before.close()
    const good = readFileSync(path)
    const seen = new Set<string>()
    let missing = 0
    const look = (): void => {
      const file = openFile(path, 64 * MIB)
      try {
        for (const i of texts.keys()) {
          const [got] = bodies(file, `http://a.test/${i}`)
          if (got === undefined) missing++
          else seen.add(got)
        }
      } finally {
        file.close()
      }
    }
    const codes = new Set<unknown>()
    for (let at = 100; at < good.length; at += 1999) {
      const broken = Buffer.from(good)
      broken.writeUInt8(broken.readUInt8(at) ^ 0xff, at)
      writeFileSync(path, broken)
      try {
        look()
      } catch (error) {
        codes.add(error instanceof Error && 'code' in error ? error.code : error)
      }
    }
    expect([...seen].toSorted()).toEqual(texts.toSorted())
    expect(missing).toBeGreaterThan(0)
    expect([...codes].filter((code) => code !== 'ERR_SQLITE_ERROR')).toEqual([])
  })
})
