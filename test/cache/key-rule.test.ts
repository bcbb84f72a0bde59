import { describe, expect, it } from 'vitest'
import { type KeyRuleOptions, compileKeyRule } from '../../src/cache/key-rule.ts'
import { urlOfKey } from '../../src/cache/key.ts'
import type { HeaderList, User } from '../../src/core/context.ts'

const asking = (headers: HeaderList = [], query = '', user: User | null = null) => ({
  method: 'GET',
  user,
  scheme: 'http' as const,
  host: 'gateway.test',
  path: '/a',
  query,
  headers,
  peerIsTrusted: false,
})
const URL = 'http://gateway.test/a'

const keyOf = (options: KeyRuleOptions, headers: HeaderList = [], isPerUser = false) =>
  compileKeyRule(options, isPerUser).ofGet(asking(headers)) ?? ''

describe('a key', () => {
  it('is the URL where the route says no more, the query byte for byte', () => {
    const { ofGet, query } = compileKeyRule({}, false)
    expect(ofGet(asking(['Cookie', 'a=1'], '?b=1&a=2&'))).toBe(`${URL}?b=1&a=2&`)
    expect(query).toBeNull()
  })

  it('has the query as the rule spells it', () => {
    expect(compileKeyRule({ query: { ignore: ['x'] } }, false).ofGet(asking([], '?b=1&x=3&a=2'))).toBe(`${URL}?a=2&b=1`)
  })

  it('has no secret in clear, and no second line end', () => {
    const headers = ['X-Tenant', 'acme', 'Cookie', 'sid=secret', 'Authorization', 'Bearer secret']
    const key = keyOf({ headers: ['x-tenant'], cookies: ['sid'] }, headers, true)
    expect(key).toMatch(/^http:\/\/gateway\.test\/a\nwith:[\w-]{43} user:[\w-]{43}$/)
    expect(urlOfKey(key)).toBe(URL)
  })

  it.each<[string, KeyRuleOptions, HeaderList, HeaderList, boolean]>([
    ['values of a field', { headers: ['x-a'] }, ['X-A', '1'], ['x-a', '2'], false],
    ['a field and its absence', { headers: ['x-a'] }, ['X-A', ''], [], false],
    ['the same value twice', { headers: ['x-a'] }, ['X-A', '1'], ['x-a', '1'], true],
    ['two spellings of one meaning', { headers: ['accept'] }, ['Accept', 'a/b, c/d'], ['Accept', 'a/b,c/d'], true],
    ['fields of other names', { headers: ['x-a'] }, ['X-B', '1'], ['X-B', '2'], true],
    [
      'values that change places',
      { headers: ['x-a', 'x-b'] },
      ['X-A', '1', 'X-B', '2'],
      ['X-A', '2', 'X-B', '1'],
      false,
    ],
    [
      'values that run together',
      { headers: ['x-a', 'x-b'] },
      ['X-A', '12', 'X-B', ''],
      ['X-A', '1', 'X-B', '2'],
      false,
    ],
    ['values of a cookie', { cookies: ['a'] }, ['Cookie', 'a=1'], ['Cookie', 'a=2'], false],
    ['a cookie and its absence', { cookies: ['a'] }, ['Cookie', 'a='], ['Cookie', 'b='], false],
    ['other cookies', { cookies: ['a'] }, ['Cookie', 'b=1; a=1'], ['Cookie', 'a=1; b=2'], true],
    ['the first and the second value', { cookies: ['a'] }, ['Cookie', 'a=1; a=2'], ['Cookie', 'a=2; a=1'], false],
    ['cookies one and both of which', { cookies: ['a', 'b'] }, ['Cookie', 'a=b; b=1'], ['Cookie', 'a=b'], false],
    ['no fields and no cookies', { cookies: ['a'] }, [], ['Cookie', ''], true],
    ['what PHP takes for a named cookie', { cookies: ['a_b'] }, ['Cookie', 'a.b=1'], ['Cookie', 'a.b=2'], false],
    ['what ASP.NET takes for a named cookie', { cookies: ['a'] }, ['Cookie', 'A=1'], [], false],
    ['two spellings in their order', { cookies: ['a'] }, ['Cookie', 'A=1; a=2'], ['Cookie', 'a=2; A=1'], false],
    [
      'more cookies than anybody has',
      { cookies: ['a'] },
      ['Cookie', `${'b=1; '.repeat(180)}a=1`],
      ['Cookie', `${'b=2; '.repeat(180)}a=1`],
      false,
    ],
    [
      'as many as there may be',
      { cookies: ['a'] },
      ['Cookie', `${'b=1; '.repeat(179)}a=1`],
      ['Cookie', `${'b=2; '.repeat(179)}a=1`],
      true,
    ],
    ['what cannot be read', { cookies: ['a'] }, ['Cookie', 'a=1; b="x; c'], ['Cookie', 'a=1; b="y; c'], false],
    [
      'what cannot be read and what can',
      { cookies: ['cookie'] },
      ['Cookie', '1', 'Cookie', 'v'],
      ['Cookie', 'cookie=v'],
      false,
    ],
  ])('for %s: %j', (_name, options, one, other, isSame) => {
    expect(keyOf(options, one) === keyOf(options, other)).toBe(isSame)
  })

  it('under one rule is another rule than under the next', () => {
    const rules = [
      compileKeyRule({}, false),
      compileKeyRule({}, true),
      compileKeyRule({ headers: ['a'] }, false),
      compileKeyRule({ cookies: ['a'] }, false),
      compileKeyRule({ query: { only: ['a'] } }, false),
      compileKeyRule({ body: 'canonical' }, false),
      compileKeyRule({ body: { fields: [['a']] } }, false),
      compileKeyRule({ body: { ignore: [['a']] } }, false),
      compileKeyRule({ body: { defaults: [[['a'], { b: 1 }]] } }, false),
      compileKeyRule({ body: { defaults: [[['a'], { b: 2 }]] } }, false),
      compileKeyRule({ body: { normalize: [[['a'], ['trim']]] } }, false),
    ]
    expect(new Set(rules.map(({ id }) => id)).size).toBe(rules.length)
  })
})

describe('the user in a key', () => {
  const user = (headers: HeaderList) => compileKeyRule({}, true).ofGet(asking(headers))

  it.each([[[]], [['X-Other', '1']], [['Cookie', '', 'Authorization', ' ']]])('is nobody with %j', (headers) => {
    expect(user(headers)).toBeNull()
  })

  it.each<[HeaderList, HeaderList, boolean]>([
    [['Authorization', 'Bearer a'], ['authorization', 'Bearer a'], true],
    [['Authorization', 'Bearer a'], ['Authorization', 'Bearer b'], false],
    [['Authorization', 'a'], ['X-Api-Key', 'a'], false],
    [['Authorization', 'a'], ['Authorization', 'a', 'Cookie', 'b=1'], false],
    [['Cookie', 'sid=a'], ['Cookie', 'sid=b'], false],
    [['Cookie', 'sid=a', 'X', '1'], ['Cookie', 'sid=a', 'X', '2'], true],
    [['X-Api-Key', 'a', 'X-Auth-Token', 'b'], ['X-Api-Key', 'a', 'X-Auth-Token', 'c'], false],
  ])('of %j and %j: the same is %s', (one, other, isSame) => {
    expect(user(one) === user(other)).toBe(isSame)
  })

  it.each<[string, HeaderList, string, HeaderList, string, boolean]>([
    ['whichever token proves it', ['Authorization', 'x'], 'ann', ['Authorization', 'y'], 'ann', true],
    ['but not another user', ['Authorization', 'x'], 'ann', ['Authorization', 'x'], 'bob', false],
    ['nor what else says who asks', ['X-Api-Key', 'x'], 'app', ['X-Api-Key', 'y'], 'app', false],
    ['nor another cookie', ['Cookie', 'a=1'], 'ann', ['Cookie', 'a=2'], 'ann', false],
  ])('who is proved is the same, %s', (_name, one, id, other, otherId, isSame) => {
    const of = (headers: HeaderList, user: string, isProved = true) =>
      compileKeyRule({}, true).ofGet(asking(headers, '', { id: user, isProved, field: 'authorization' }))
    expect(of(one, id) === of(other, otherId)).toBe(isSame)
    // What is only claimed proves nothing of the token.
    expect(of(one, id, false) === of(other, otherId, false)).toBe(false)
    expect(of([], id, false)).not.toBe(of([], id, true))
  })

  it('is told apart by all cookies, whichever the key names', () => {
    const of = (cookie: string) => keyOf({ cookies: ['lang'] }, ['Cookie', cookie], true)
    expect(of('lang=de; sid=a')).not.toBe(of('lang=de; sid=b'))
  })
})

describe('a secret', () => {
  const asked = { ...asking(['Authorization', 'Bearer a', 'X-Plan', 'gold']), method: 'POST' }
  const keyWith = (secret?: string | null) => {
    const setup = secret === undefined ? {} : { secret }
    return compileKeyRule({ headers: ['x-plan'], body: 'canonical' }, true, setup).ofBody(asked, 'a body') ?? ''
  }

  it('is in each digest of a key, and in nothing else', () => {
    const words = (key: string) => key.split(/[\n ]/)
    const [plain, one, other] = [keyWith(), keyWith('s'.repeat(16)), keyWith('t'.repeat(16))].map(words)
    expect(keyWith(null)).toBe(keyWith())
    expect(keyWith('s'.repeat(16))).toBe(keyWith('s'.repeat(16)))
    const same = (a?: string[], b?: string[]) => a?.filter((word, i) => word === b?.[i])
    expect(plain?.map((word) => word.split(':')[0])).toEqual(['http', 'POST', 'body', 'with', 'user'])
    for (const [a, b] of [
      [plain, one],
      [one, other],
    ]) {
      expect(same(a, b)).toEqual([plain?.[0], 'POST'])
    }
  })
})
