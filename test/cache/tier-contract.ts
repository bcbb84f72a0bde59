// What every tier promises (src/cache/tier.ts). Call it once for each, with a way to open one on the same place again.

import { describe, expect, it } from 'vitest'
import type { StoredResponse } from '../../src/cache/entry.ts'
import type { CacheTier } from '../../src/cache/tier.ts'
import type { HeaderList } from '../../src/core/context.ts'
import { type EntryParts, entryOf } from '../support/entry.ts'
import { until } from '../support/redis.ts'

/** Where a tier keeps its entries, empty at first. */
export interface TierPlace {
  /** A tier that is ready. The place closes it after the test, where the test does not. */
  open(): Promise<CacheTier>
}

const KEY = 'http://gateway.test/'
const EPOCH = 'epoch'

/** Of use for an hour from now. */
export function lasting(parts: EntryParts & { epoch?: string } = {}): StoredResponse {
  const nowMs = Date.now()
  const untilMs = nowMs + 3_600_000
  return {
    ...entryOf(parts),
    epoch: parts.epoch ?? EPOCH,
    bornAtMs: nowMs,
    freshUntilMs: untilMs,
    staleWhileRevalidateUntilMs: untilMs,
    staleIfErrorUntilMs: untilMs,
  }
}

/** What a request with these fields gets from a tier. */
export async function readFor(tier: CacheTier, headers: HeaderList = [], key = KEY, claims = ''): Promise<string[]> {
  const entries = await tier.read(key, EPOCH, { headers, claims })
  return entries.map(({ body }) => body.toString())
}

/** Writes, and waits until that is done. */
export async function writeAll(tier: CacheTier, ...entries: readonly StoredResponse[]): Promise<void> {
  const before = tier.counts.written
  for (const entry of entries) tier.write(entry)
  await until(() => tier.counts.written === before + entries.length, `${entries.length} entries to be written`)
}

export function describeTier(name: string, createPlace: () => TierPlace): void {
  describe(`${name}, as any tier`, () => {
    it('has nothing at first', async () => {
      const tier = await createPlace().open()
      expect(await readFor(tier)).toEqual([])
      expect(tier.counts).toEqual({ hits: 0, misses: 1, bad: 0, locked: 0, failed: 0, written: 0, dropped: 0 })
    })

    it.each([
      ['plain text', {}],
      ['an empty body', { body: '' }],
      ['bytes of all kinds', { body: Buffer.from(Array.from({ length: 70_000 }, (_, i) => (i * i) % 251)) }],
      ['a long text', { body: '{"title": "one of many"},'.repeat(5000) }],
      ['a coded body', { body: 'x'.repeat(5000), headers: ['Content-Encoding', 'br'] }],
      ['tags, variants and claims', { tags: ['a', 'b'], vary: ['a', 'b'], request: ['A', '\xE9'], claims: 'for me' }],
      ['a key beyond ASCII', { key: 'http://gateway.test/\u{1F600}?\n' }],
    ] satisfies [string, EntryParts][])('gives back what was written, to the last bit: %s', async (_what, parts) => {
      const tier = await createPlace().open()
      const entry = lasting(parts)
      await writeAll(tier, entry)
      const by = { headers: ['A', '\xE9'], claims: entry.claims }
      expect(await tier.read(entry.key, EPOCH, by)).toEqual([entry])
      expect(tier.counts).toMatchObject({ hits: 1, misses: 0, written: 1 })
    })

    it('gives it for its key and epoch alone', async () => {
      const tier = await createPlace().open()
      await writeAll(tier, lasting({ body: 'mine' }), lasting({ body: 'other', epoch: 'other' }))
      expect(await readFor(tier)).toEqual(['mine'])
      expect(await readFor(tier, [], `${KEY}?`)).toEqual([])
      expect(await tier.read(KEY, 'third', { headers: [], claims: '' })).toEqual([])
    })

    it('gives what was written last', async () => {
      const tier = await createPlace().open()
      await writeAll(tier, lasting({ body: 'old' }))
      await writeAll(tier, lasting({ body: 'new' }))
      expect(await readFor(tier)).toEqual(['new'])
    })

    it('[RFC 9111 §4.1] gives the variant that a request selects', async () => {
      const tier = await createPlace().open()
      const language = (value: string) => ['Accept-Language', value]
      for (const value of ['en', 'de', 'fr', 'de']) {
        await writeAll(tier, lasting({ body: value, vary: ['accept-language'], request: language(value) }))
      }
      await writeAll(tier, lasting({ body: 'none', vary: ['accept-language'] }))
      for (const value of ['en', 'de', 'fr']) expect(await readFor(tier, language(value))).toContain(value)
      expect(await readFor(tier)).toContain('none')
      for (const variants of [await readFor(tier, language('it')), await readFor(tier, [], KEY, 'claims')]) {
        expect(variants).not.toContain('it')
      }
    })

    it('keeps apart what a trusted proxy says', async () => {
      const tier = await createPlace().open()
      await writeAll(tier, lasting({ body: 'all' }), lasting({ body: 'one', claims: 'one' }))
      await writeAll(tier, lasting({ body: 'two', claims: 'two' }))
      for (const claims of ['one', 'two']) {
        const entries = await tier.read(KEY, EPOCH, { headers: [], claims })
        expect(entries.filter((entry) => entry.claims === claims).map(({ body }) => body.toString())).toEqual([claims])
      }
    })

    it('gives what varies by other fields than before', async () => {
      const tier = await createPlace().open()
      await writeAll(tier, lasting({ body: 'plain' }))
      await writeAll(tier, lasting({ body: 'a', vary: ['a'], request: ['a', '1'] }))
      expect(await readFor(tier, ['a', '1'])).toContain('a')
      await writeAll(tier, lasting({ body: 'b', vary: ['b'], request: ['b', '1'] }))
      expect(await readFor(tier, ['b', '1'])).toContain('b')
    })

    it('gives nothing that was removed, from the call on, nor any variant of it ever again', async () => {
      const tier = await createPlace().open()
      const variant = (body: string) => lasting({ body, vary: ['a'], request: ['a', body] })
      await writeAll(tier, variant('1'), lasting({ key: `${KEY}stays`, body: 'stays' }))
      await writeAll(tier, variant('2'))
      tier.write(variant('3'))
      tier.delete(KEY, EPOCH)
      for (const a of ['1', '2', '3']) expect(await readFor(tier, ['a', a])).toEqual([])
      await writeAll(tier, variant('4'))
      await until(async () => (await readFor(tier, ['a', '4'])).includes('4'), 'what was written after the removal')
      for (const a of ['1', '2', '3']) expect(await readFor(tier, ['a', a])).not.toContain(a)
      expect(await readFor(tier, [], `${KEY}stays`)).toEqual(['stays'])
    })

    it('has it still when it is opened again', async () => {
      const place = createPlace()
      const before = await place.open()
      before.write(lasting({ body: 'kept' }))
      await before.close()
      const after = await place.open()
      expect(await readFor(after)).toEqual(['kept'])
    })

    it('does nothing once it is closed, and fails nobody', async () => {
      const place = createPlace()
      const tier = await place.open()
      await tier.close()
      tier.write(lasting())
      tier.delete(KEY, EPOCH)
      await tier.close()
      expect(await readFor(await place.open())).toEqual([])
      expect(tier.counts).toMatchObject({ written: 0, dropped: 1 })
    })
  })
}
