// What YAML may not say of an upstream, because it would break every request or leave the normal form of paths.

import { describe, expect, it } from 'vitest'
import { headerEditOptions, rewriteOptions, upstreamOptions } from '../../src/upstream/options.ts'

describe('header edits', () => {
  it.each([
    'Content-Length',
    'transfer-encoding',
    'Connection',
    'Keep-Alive',
    'Upgrade',
    'TE',
    'Trailer',
    'Expect',
    'Proxy-Connection',
    'a b',
    'a:b',
    '',
    'ä',
  ])('may not touch %j', (name) => {
    expect(headerEditOptions.safeParse({ set: { [name]: 'x' } }).success).toBe(false)
    expect(headerEditOptions.safeParse({ remove: [name] }).success).toBe(false)
  })

  it.each(['a\nb', 'a\rb', 'a\0b', 'a\x7fb', '→'])('may not set %j', (value) => {
    expect(headerEditOptions.safeParse({ set: { 'X-A': value } }).success).toBe(false)
  })

  it('may set Host, and any other field to any valid value', () => {
    const edits = { set: { Host: 'inside.test', 'X-Empty': '', 'X-Latin': 'é\tß' }, remove: ['Cookie'] }
    expect(headerEditOptions.parse(edits)).toEqual(edits)
  })
})

describe('rewrites', () => {
  it.each([
    '',
    'api',
    '//api',
    '/a//b',
    '/a/../b',
    '/..',
    '/./a',
    '/a/.',
    '/a b',
    '/a%20b',
    '/a?b',
    '/a#b',
    '/ä',
    '/a\\b',
    '/..;/x',
  ])('may not be %j', (path) => {
    expect(rewriteOptions.safeParse({ strip: path }).success).toBe(false)
    expect(rewriteOptions.safeParse({ prefix: path }).success).toBe(false)
  })

  it.each(['/', '/api', '/api/', '/a/b.c/~d', '/a;v=1'])('may be %j', (path) => {
    expect(rewriteOptions.parse({ strip: path, prefix: path })).toEqual({ strip: path, prefix: path })
  })
})

describe('targets', () => {
  it.each([
    '127.0.0.1:80',
    'ftp://a',
    'http://',
    'http://a/path',
    'http://a?q',
    'http://user:pw@a',
    'http://a b',
    'http://a:99999',
  ])('may not be %j', (url) => {
    expect(upstreamOptions.safeParse({ targets: [url] }).success).toBe(false)
    expect(upstreamOptions.safeParse({ targets: [{ url }] }).success).toBe(false)
  })

  it.each(['http://a', 'https://a:8443/', 'http://[::1]:80', 'http://127.0.0.1:8000'])('may be %j', (url) => {
    expect(upstreamOptions.parse({ targets: [url, { url }] }).targets.map((target) => target.url.href)).toEqual(
      Array(2).fill(new URL(url).href),
    )
  })
})
