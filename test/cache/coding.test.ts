import { describe, expect, it } from 'vitest'
import { codedForm, mayCode, recoded } from '../../src/cache/coding.ts'
import type { HeaderList } from '../../src/core/context.ts'

const JSON_OF_2K: HeaderList = ['Content-Type', 'application/json', 'Content-Length', '2048']

describe('what may be coded', () => {
  it.each([
    'text/html',
    'text/html; charset=utf-8',
    'TEXT/CSS',
    'text/javascript',
    'application/json',
    'application/json ; charset=utf-8',
    'application/problem+json',
    'application/vnd.api+json',
    'application/xml',
    'application/atom+xml',
    'image/svg+xml',
    'application/javascript',
    'application/wasm',
    'font/ttf',
  ])('%s', (type) => {
    expect(mayCode({ status: 200, headers: ['Content-Type', type, 'Content-Length', '2048'] })).toBe(true)
  })

  it.each([
    'image/png',
    'video/mp4',
    'application/zip',
    'application/pdf',
    'application/octet-stream',
    'font/woff2',
    'text/event-stream',
    'Text/Event-Stream; charset=utf-8',
    'multipart/byteranges; boundary=text/html',
    'application/jsonish',
    'texture/plain',
    '',
  ])('but not %j', (type) => {
    expect(mayCode({ status: 200, headers: ['Content-Type', type, 'Content-Length', '2048'] })).toBe(false)
  })

  it('nothing without a type', () => {
    expect(mayCode({ status: 200, headers: ['Content-Length', '2048'] })).toBe(false)
  })

  it.each([
    ['1023', false],
    ['1024', true],
    [String(32 * 1024 ** 2), true],
    [String(32 * 1024 ** 2 + 1), false],
  ])('with %s bytes: %s', (length, expected) => {
    const headers = ['Content-Type', 'text/plain', 'content-length', length]
    expect(mayCode({ status: 200, headers })).toBe(expected)
  })

  it.each([203, 206, 204, 301, 404, 500])('no %i', (status) => {
    expect(mayCode({ status, headers: JSON_OF_2K })).toBe(false)
  })

  it.each([
    ['is coded', ['Content-Encoding', 'gzip']],
    ['is a part', ['Content-Range', 'bytes 0-2047/2048']],
    ['has a digest [RFC 9530]', ['Content-Digest', 'sha-256=:YQ==:']],
    ['has a digest of its representation [RFC 9530]', ['Repr-Digest', 'sha-256=:YQ==:']],
    ['has a digest of old', ['Digest', 'sha-256=YQ==']],
    ['has a sum', ['Content-MD5', 'YQ==']],
    ['is not to be transformed [RFC 9111 §5.2.2.6]', ['Cache-Control', 'max-age=60, No-Transform']],
    [
      'is not to be transformed, by a line of its own',
      ['cache-control', 'max-age=60', 'Cache-Control', 'no-transform'],
    ],
    ['is not to be transformed by caches like this one', ['CDN-Cache-Control', 'max-age=60, no-transform']],
  ])('nothing that %s', (_what, fields) => {
    expect(mayCode({ status: 200, headers: [...JSON_OF_2K, ...fields] })).toBe(false)
  })
})

describe('the head of a coded form', () => {
  const stored = [...JSON_OF_2K, 'ETag', '"a"', 'Accept-Ranges', 'bytes', 'Vary', 'Origin', 'Last-Modified', 'x']
  const body = Buffer.alloc(10)

  it('has a weak tag, its own length, and no parts', () => {
    const kept = ['Content-Type', 'application/json', 'Vary', 'Origin', 'Last-Modified', 'x']
    const own = ['ETag', 'W/"a"', 'Accept-Ranges', 'none', 'Content-Encoding', 'br', 'Content-Length', '10']
    expect(codedForm(stored, 'br', body).headers).toEqual(kept.concat(own))
  })

  it.each([
    ['W/"a"', 'W/"a"'],
    ['""', 'W/""'],
    ['unquoted', 'unquoted'],
  ])('the tag %s becomes %s', (tag, coded) => {
    const { headers } = codedForm(['ETag', tag], 'gzip', body)
    expect(headers.slice(0, 2)).toEqual(['ETag', coded])
  })

  it('follows that of the response when it is freshened', () => {
    const form = codedForm(stored, 'br', body)
    const newer = [...JSON_OF_2K, 'ETag', '"a"', 'X-New', '1']
    expect(recoded([form], newer)).toEqual([codedForm(newer, 'br', body)])
    expect(recoded([codedForm(stored, 'br', null)], newer)).toEqual([{ coding: 'br', headers: [], body: null }])
  })
})
