import * as fc from 'fast-check'
import { expect, it } from 'vitest'
import { type Answer, packAnswer, replayed, unpackAnswer } from '../../src/idempotency/answer.ts'

const latin1 = fc.string({ unit: fc.integer({ min: 0x20, max: 0xff }).map((code) => String.fromCharCode(code)) })
const answer: fc.Arbitrary<Answer> = fc.record({
  status: fc.integer({ min: 200, max: 599 }),
  headers: fc.array(fc.tuple(latin1, latin1)).map((pairs) => pairs.flat()),
  body: fc.option(
    fc.oneof(
      fc.uint8Array({ maxLength: 5000 }).map((bytes) => Buffer.from(bytes)),
      fc.nat({ max: 200_000 }).map((length) => Buffer.alloc(length, 'ab')),
    ),
  ),
})

it('comes out of its packing as it went in', async () => {
  await fc.assert(
    fc.asyncProperty(answer, async (each) => {
      const packed = await packAnswer(each)
      expect(await unpackAnswer(packed as Buffer)).toEqual(each)
    }),
    { numRuns: 50 },
  )
})

it('is none where a byte of it is another, or it is cut short', async () => {
  const packed = (await packAnswer({ status: 200, headers: ['A', 'b'], body: Buffer.alloc(3000, 'x') })) as Buffer
  for (let at = 0; at < packed.length; at++) {
    const damaged = Buffer.from(packed)
    damaged[at] = (damaged[at] as number) ^ 0x55
    const read = await unpackAnswer(damaged)
    // Redis keeps bytes as they are; what somebody changes on purpose is for the cipher to find out.
    expect(read === null || Array.isArray(read.headers)).toBe(true)
    expect(await unpackAnswer(packed.subarray(0, at))).toBeNull()
  }
})

it.each([Buffer.alloc(0), Buffer.from('WGI1'), Buffer.alloc(100), Buffer.from('WGI1\0\0\0\0\x08\0\0\0\x04null')])(
  'is none in %j',
  async (bytes) => expect(await unpackAnswer(bytes)).toBeNull(),
)

it('is not packed where even that is too large, and never unpacked beyond what it says', async () => {
  const random = Buffer.from(Array.from({ length: 1024 }, (_, i) => (i * 7919) % 251))
  const noise = Buffer.concat(Array.from({ length: 2000 }, (_, i) => random.map((byte) => (byte ^ (i * 31)) & 0xff)))
  expect(await packAnswer({ status: 200, headers: [], body: Buffer.alloc(17 * 1024 ** 2) })).toBeNull()
  const packed = await packAnswer({ status: 200, headers: [], body: noise })
  expect(packed === null || packed.length <= 1024 ** 2).toBe(true)
  const small = (await packAnswer({ status: 200, headers: [], body: Buffer.alloc(100_000) })) as Buffer
  small.writeUInt32BE(1000, 5)
  expect(await unpackAnswer(small)).toBeNull()
})

it('says once that it is replayed', () => {
  const headers = ['idempotency-replayed', 'false', 'A', 'b']
  expect(replayed({ status: 200, headers, body: null }).headers).toEqual(['A', 'b', 'Idempotency-Replayed', 'true'])
})
