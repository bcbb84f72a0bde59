// Parts cut from what is stored whole (RFC 9110 §14), over real sockets.

import { describe, expect, it } from 'vitest'
import { type RequestOptions, request } from '../support/client.ts'
import { startEdge } from '../support/edge.ts'

const MODIFIED = 'Sat, 21 Nov 2026 12:00:00 GMT'
const FIELDS = {
  'Content-Type': 'text/plain',
  ETag: '"a"',
  'Last-Modified': MODIFIED,
  Date: 'Sun, 22 Nov 2026 12:00:00 GMT',
}

/** A gateway that has `0123456789` stored under /x. */
async function start(fields: Record<string, string> = FIELDS, status = 200) {
  const { origin, gateway } = await startEdge({
    routes: ['{path: /*, cache: {ttl: {200: 1h, 404: 1h}, override: true}}'],
    script: (_request, response) => void response.writeHead(status, fields).end('0123456789'),
  })
  const get = (headers: RequestOptions['headers'] = {}, method = 'GET') =>
    request(`${gateway.url}/x`, { headers, method })
  await get()
  return { origin, get }
}

describe('a part of what is stored', () => {
  it.each([
    ['bytes=2-4', 'bytes 2-4/10', '234'],
    ['bytes=7-', 'bytes 7-9/10', '789'],
    ['bytes=-2', 'bytes 8-9/10', '89'],
    ['bytes=8-99', 'bytes 8-9/10', '89'],
    ['bytes=0-2,3-5', 'bytes 0-5/10', '012345'],
  ])('[RFC 9110 §14.2] %s is answered with %s', async (range, expected, text) => {
    const { origin, get } = await start()
    const part = await get({ Range: range })
    expect([part.status, part.headers['content-range'], part.text]).toEqual([206, expected, text])
    expect(part.headers).toMatchObject({
      'content-length': String(text.length),
      'content-type': 'text/plain',
      etag: '"a"',
      'x-cache': 'HIT',
    })
    expect(origin.seen).toHaveLength(1)
  })

  it('[RFC 9110 §15.3.7.2] in several pieces comes as multipart/byteranges', async () => {
    const { get } = await start()
    const { status, headers, text } = await get({ Range: 'bytes=0-1,-2' })
    const boundary = /^multipart\/byteranges; boundary=([0-9a-f]{32})$/.exec(headers['content-type'] ?? '')?.[1] ?? '?'
    expect([status, headers['content-range'], headers['content-length']]).toEqual([206, undefined, String(text.length)])
    expect(text.split('\r\n')).toEqual([
      `--${boundary}`,
      'Content-Type: text/plain',
      'Content-Range: bytes 0-1/10',
      '',
      '01',
      `--${boundary}`,
      'Content-Type: text/plain',
      'Content-Range: bytes 8-9/10',
      '',
      '89',
      `--${boundary}--`,
      '',
    ])
  })

  it('[RFC 9110 §15.5.17] beyond its end is a 416 that names its length', async () => {
    const { origin, get } = await start()
    const { status, headers, text } = await get({ Range: 'bytes=10-' })
    expect([status, headers['content-range'], text]).toEqual([416, 'bytes */10', ''])
    expect(origin.seen).toHaveLength(1)
  })

  it.each<[string, Record<string, string>, number]>([
    ['with the strong tag that is stored', { 'If-Range': '"a"' }, 206],
    ['with another tag', { 'If-Range': '"b"' }, 200],
    ['with a weak tag', { 'If-Range': 'W/"a"' }, 200],
    ['with the date that is stored', { 'If-Range': MODIFIED }, 206],
    ['with another date', { 'If-Range': FIELDS.Date }, 200],
  ])('[RFC 9110 §13.1.5] is asked for %s', async (_name, condition, status) => {
    const { get } = await start()
    const answer = await get({ Range: 'bytes=0-0', ...condition })
    expect([answer.status, answer.text]).toEqual([status, status === 206 ? '0' : '0123456789'])
  })

  it('[RFC 9110 §13.2.2] is asked for only after the condition: what has not changed is a 304', async () => {
    const { get } = await start()
    expect((await get({ Range: 'bytes=0-0', 'If-None-Match': '"a"' })).status).toBe(304)
  })

  it.each([
    ['HEAD', 'bytes=0-0'],
    ['GET', 'lines=0-0'],
    ['GET', 'bytes=4-2'],
    ['GET', 'bytes=0-0;'],
  ])('[RFC 9110 §14.2] is not what %s with %s asks for', async (method, range) => {
    const { get } = await start()
    const { status, headers } = await get({ Range: range }, method)
    expect([status, headers['content-length'], headers['x-cache']]).toEqual([200, '10', 'HIT'])
  })

  it('is not made larger than the whole by asking for the same bytes again and again', async () => {
    const { get } = await start()
    const { status, text } = await get({ Range: `bytes=${'0-8,'.repeat(500)}1-9` })
    expect([status, text]).toEqual([206, '0123456789'])
  })

  it('[RFC 9110 §14.2] is not cut from anything but a 200', async () => {
    const { get } = await start(FIELDS, 404)
    const answer = await get({ Range: 'bytes=0-0' })
    expect([answer.status, answer.text]).toEqual([404, '0123456789'])
  })
})
