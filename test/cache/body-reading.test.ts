import { PassThrough, Readable } from 'node:stream'
import { describe, expect, it } from 'vitest'
import { compileBodyReading } from '../../src/cache/body-reading.ts'
import { compileKeyRule } from '../../src/cache/key-rule.ts'
import { createSharedCache } from '../../src/cache/shared.ts'
import { createMemoryStore } from '../../src/cache/stores/memory.ts'
import { type RequestBody, RequestContext } from '../../src/core/context.ts'
import { GatewayError } from '../../src/core/errors.ts'

const KIB = 1024

function bench(maxBodyBytes = 1024 * KIB) {
  const shared = createSharedCache(createMemoryStore(KIB), () => 0)
  const read = compileBodyReading(shared, compileKeyRule({ body: 'raw' }, false), maxBodyBytes)
  return { shared, read }
}

const asking = (body: RequestBody | null): RequestContext =>
  new RequestContext(
    {
      method: 'POST',
      scheme: 'http',
      host: 'a.test',
      path: '/',
      query: '',
      version: '1.1',
      headers: [],
      body,
      peerAddress: '192.0.2.7',
      receivedAtMs: 0,
    },
    'id',
  )

const unread: RequestBody['open'] = () => {
  throw new Error('read')
}

async function textOf(body: RequestBody | null): Promise<string> {
  const chunks: Buffer[] = []
  for await (const chunk of body?.open(0) ?? []) chunks.push(chunk as Buffer)
  return Buffer.concat(chunks).toString()
}

describe('a body that is read for its key', () => {
  it('can be sent again and again, and counts until its request is over', async () => {
    const { shared, read } = bench()
    const ctx = asking({ declaredBytes: 5, open: () => Readable.from([Buffer.from('ab'), Buffer.from('cde')]) })
    expect(await read(ctx)).toMatchObject({ ok: true })
    expect([await textOf(ctx.body), await textOf(ctx.body), ctx.body?.declaredBytes]).toEqual(['abcde', 'abcde', 5])
    expect(shared.heldBytes).toBe(5)
    for (let i = 0; i < 2; i++) ctx.body?.release?.()
    expect(shared.heldBytes).toBe(0)
  })

  it('in chunks counts for the most that it may have; what is longer goes on from its beginning', async () => {
    const { shared, read } = bench()
    const chunks = Array.from({ length: 5 }, (_, i) => Buffer.alloc(64 * KIB, String(i)))
    const ctx = asking({ declaredBytes: null, open: () => Readable.from(chunks) })
    const reading = read(ctx)
    expect(shared.heldBytes).toBe(256 * KIB)
    expect(await reading).toEqual({ ok: false, reason: 'body-too-large' })
    expect(await textOf(ctx.body)).toBe(Buffer.concat(chunks).toString())
    ctx.body?.release?.()
    expect(shared.heldBytes).toBe(0)
  })

  it('that is not there is empty', async () => {
    expect(await bench().read(asking(null))).toMatchObject({ ok: true })
  })

  it.each([
    [256 * KIB + 1, 1024 * KIB],
    [11, 10],
  ])('is left unread where it says that it has %i bytes and may have %i', async (declaredBytes, maxBodyBytes) => {
    const { shared, read } = bench(maxBodyBytes)
    expect(await read(asking({ declaredBytes, open: unread }))).toEqual({ ok: false, reason: 'body-too-large' })
    expect(shared.heldBytes).toBe(0)
  })

  it('is left unread where too much is held already', async () => {
    const { shared, read } = bench()
    const open = () => new PassThrough()
    for (let i = 0; i < 256; i++) void read(asking({ declaredBytes: null, open }))
    expect(shared.heldBytes).toBe(64 * KIB * KIB)
    expect(await read(asking({ declaredBytes: 1, open: unread }))).toEqual({ ok: false, reason: 'body-budget' })
  })

  it.each([
    ['breaks', (stream: PassThrough) => void stream.destroy(new GatewayError('timeout_body', 'slow')), 'timeout_body'],
    ['ends without an end', (stream: PassThrough) => void stream.destroy(), 'client_gone'],
  ])("and %s is nobody's any more", async (_name, end, code) => {
    const { shared, read } = bench()
    const stream = new PassThrough()
    const reading = read(asking({ declaredBytes: 5, open: () => stream }))
    stream.write('ab')
    end(stream)
    await expect(reading).rejects.toMatchObject({ code })
    expect(shared.heldBytes).toBe(0)
  })
})
