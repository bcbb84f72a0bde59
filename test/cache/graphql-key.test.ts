import { createHash } from 'node:crypto'
import { describe, expect, it } from 'vitest'
import { KnownDocuments, graphqlQuery, graphqlTexts } from '../../src/cache/graphql-key.ts'
import { type PlainJson, fromPlainJson } from '../../src/http/json.ts'

const sha256 = (text: string): string => createHash('sha256').update(text).digest('hex')
const hashed = (text: string) => ({ persistedQuery: { version: 1, sha256Hash: sha256(text) } })
const texts = (body: PlainJson, documents = new KnownDocuments()) => graphqlTexts(fromPlainJson(body), documents)

describe('what the answer to a body is told apart by', () => {
  const plain = { query: 'query A($x: Int) {a(x: $x)}', operationName: 'A', variables: { x: 1, y: [2] } }

  it.each<[string, PlainJson]>([
    ['the spelling of the document', { ...plain, query: 'query A ($x: Int), { a (x: $x) } # all' }],
    ['the order of variables', { ...plain, variables: { y: [2], x: 1 } }],
    ['extensions of which there are none', { ...plain, extensions: {} }],
    ['extensions that are null', { ...plain, extensions: null }],
    ['a hash along with the document', { ...plain, extensions: hashed(plain.query) }],
  ])('is not %s', (_what, body) => {
    expect(texts(body)).toEqual(texts(plain))
  })

  it.each<[string, PlainJson]>([
    ['the document', { ...plain, query: 'query A($x: Int) {b(x: $x)}' }],
    ['a variable', { ...plain, variables: { x: 2, y: [2] } }],
    ['the order in a list', { ...plain, variables: { x: 1, y: [2, 3] } }],
    ['a variable that is null', { ...plain, variables: { x: 1, y: [2], z: null } }],
    ['whether the operation is named', { ...plain, operationName: null }],
  ])('is %s', (_what, body) => {
    expect(texts(body)).toEqual(expect.any(Array))
    expect(texts(body)).not.toEqual(texts(plain))
  })

  it('is which of several operations is asked for', () => {
    const query = 'query A {a} query B {b}'
    expect(texts({ query, operationName: 'A' })).not.toEqual(texts({ query, operationName: 'B' }))
  })

  it('takes members that are null for absent, and no variables for none', () => {
    const all = [
      { query: '{a}' },
      { query: '{a}', variables: null, operationName: null },
      { query: '{a}', variables: {} },
    ]
    const [first, ...others] = all.map((body) => texts(body))
    expect(first).toEqual(expect.any(Array))
    for (const other of others) expect(other).toEqual(first)
  })

  it.each<[string, PlainJson, string]>([
    ['a mutation', { query: 'mutation {a}' }, 'mutation'],
    [
      'a mutation that is not the operation asked for',
      { query: 'query A {a} mutation B {b}', operationName: 'A' },
      'mutation',
    ],
    ['a subscription', { query: 'subscription {a}' }, 'subscription'],
    ['a mutation and a subscription', { query: 'subscription A {a} mutation B {b}', operationName: 'A' }, 'mutation'],
    ['a batch', [{ query: '{a}' }, { query: '{b}' }], 'graphql-batch'],
    ['an empty batch', [], 'graphql-batch'],
    ['a batch with a mutation', [{ query: '{a}' }, { query: 'mutation {b}' }], 'mutation'],
    ['a batch with something unclear', [{ query: '{a}' }, { id: 1 }], 'unclear-graphql'],
    ['several operations and no name', { query: 'query A {a} query B {b}' }, 'unclear-graphql'],
    ['a name that no operation has', { query: 'query A {a}', operationName: 'B' }, 'unclear-graphql'],
    ['a name that two have', { query: 'query A {a} query A {b}', operationName: 'A' }, 'unclear-graphql'],
    ['an empty name', { query: '{a}', operationName: '' }, 'unclear-graphql'],
    ['no document', { variables: {} }, 'unclear-graphql'],
    ['an empty document', { query: '' }, 'unclear-graphql'],
    ['a document that is none', { query: '{a' }, 'unclear-graphql'],
    ['an answer in parts', { query: '{a ... @defer {b}}' }, 'unclear-graphql'],
    ['a document that is no text', { query: ['{a}'] }, 'unclear-graphql'],
    ['variables in a list', { query: '{a}', variables: [1] }, 'unclear-graphql'],
    ['variables as a text', { query: '{a}', variables: '{}' }, 'unclear-graphql'],
    ['another member', { query: '{a}', id: 'x' }, 'unclear-graphql'],
    ['another extension', { query: '{a}', extensions: { trace: true } }, 'unclear-graphql'],
    ['an extension beside the hash', { query: '{a}', extensions: { ...hashed('{a}'), trace: 1 } }, 'unclear-graphql'],
    [
      'another version of hashes',
      { query: '{a}', extensions: { persistedQuery: { version: 2, sha256Hash: sha256('{a}') } } },
      'unclear-graphql',
    ],
    [
      'something in the place of a hash',
      { extensions: { persistedQuery: { version: 1, sha256Hash: 'abc' } } },
      'unclear-graphql',
    ],
    ['the hash of another document', { query: '{a}', extensions: hashed('{b}') }, 'unclear-graphql'],
    ['a hash that is not known', { extensions: hashed('{a}') }, 'unknown-document'],
    ['a text', '{a}', 'unclear-graphql'],
    ['null', null, 'unclear-graphql'],
  ])('is nothing for %s', (_what, body, refusal) => {
    expect(texts(body)).toBe(refusal)
  })
})

describe('a hash in the place of a document', () => {
  it('stands for it once that has come, without its hash as well', () => {
    const documents = new KnownDocuments()
    const whole = texts({ query: '{a}' }, documents)
    expect(texts({ extensions: hashed('{a}') }, documents)).toEqual(whole)
  })

  it('stands for it in either case of letters', () => {
    const documents = new KnownDocuments()
    const whole = texts({ query: '{a}', extensions: hashed('{a}'), variables: { x: 1 } }, documents)
    const upper = { persistedQuery: { version: 1, sha256Hash: sha256('{a}').toUpperCase() } }
    for (const extensions of [hashed('{a}'), upper]) {
      expect(texts({ extensions, variables: { x: 1 } }, documents)).toEqual(whole)
    }
    expect(texts({ extensions: hashed('{a}'), variables: { x: 2 } }, documents)).not.toEqual(whole)
  })

  it('is no query where the document is none', () => {
    const documents = new KnownDocuments()
    expect(texts({ query: 'mutation {a}', extensions: hashed('mutation {a}') }, documents)).toBe('mutation')
    expect(texts({ extensions: hashed('mutation {a}') }, documents)).toBe('mutation')
  })

  it('is not learnt from who sends another document with it', () => {
    const documents = new KnownDocuments()
    expect(texts({ query: '{a}', extensions: hashed('mutation {a}') }, documents)).toBe('unclear-graphql')
    expect(texts({ extensions: hashed('mutation {a}') }, documents)).toBe('unknown-document')
  })

  it('is forgotten after 4,096 others', () => {
    const documents = new KnownDocuments()
    const learn = (i: number) => texts({ query: `{a${i}}`, extensions: hashed(`{a${i}}`) }, documents)
    for (let i = 0; i < 4097; i++) learn(i)
    expect(texts({ extensions: hashed('{a0}') }, documents)).toBe('unknown-document')
    expect(texts({ extensions: hashed('{a1}') }, documents)).toEqual(learn(1))
  })
})

describe('the query of a URL', () => {
  const query = (parts: Record<string, string>): string => `?${new URLSearchParams(parts).toString()}`
  const spelt = (raw: string, documents = new KnownDocuments()) => graphqlQuery(raw, false, documents)
  const byHash = JSON.stringify(hashed('{a}'))

  it.each([
    ['the spelling of the document', query({ query: '{a b}' }), query({ query: ' {a,\n b} # all' })],
    ['the order of parameters', '?query={a}&variables={"x":1}', '?variables={"x":1}&query={a}'],
    [
      'the spelling of JSON',
      query({ query: '{a}', variables: '{"x":1,"y":2}' }),
      query({ query: '{a}', variables: ' {"y":2, "x":1.0}' }),
    ],
    ['escapes', '?query=%7Ba%7D', '?query={a}'],
    ['blanks as they are in forms', '?query=%7Ba%20b%7D', '?query=%7Ba+b%7D'],
    ['escapes in names', '?query={a}', '?q%75ery={a}'],
    ['empty parameters', '?query={a}', '?&query={a}&'],
  ])('is the same but for %s', (_what, a, b) => {
    expect(spelt(a)).toEqual({ query: expect.any(String) })
    expect(spelt(a)).toEqual(spelt(b))
  })

  it.each([
    ['the document', query({ query: '{a}' }), query({ query: '{b}' })],
    ['a variable', query({ query: '{a}', variables: '{"x":1}' }), query({ query: '{a}', variables: '{"x":2}' })],
    ['the hash', query({ extensions: byHash }), query({ extensions: JSON.stringify(hashed('{b}')) })],
    ['another parameter', '?query={a}&v=1', '?query={a}&v=2'],
    ['the order of others', '?query={a}&v=1&w=2', '?query={a}&w=2&v=1'],
    ['blanks in a text', query({ query: '{a(x: "1 2")}' }), query({ query: '{a(x: "1  2")}' })],
  ])('is another by %s', (_what, a, b) => {
    expect(spelt(a)).toEqual({ query: expect.any(String) })
    expect(spelt(b)).toEqual({ query: expect.any(String) })
    expect(spelt(a)).not.toEqual(spelt(b))
  })

  it.each(['', '?', '?a=1&b=2', '?op=x'])('stays as it is where nothing of GraphQL is in it: %j', (raw) => {
    expect(spelt(raw)).toEqual({ query: raw === '?' ? '' : raw })
  })

  it.each([
    ['a mutation', query({ query: 'mutation {a}' }), 'mutation'],
    ['a mutation beside the query', query({ query: 'query A {a} mutation B {b}', operationName: 'A' }), 'mutation'],
    ['a subscription', query({ query: 'subscription {a}' }), 'subscription'],
    ['two documents', '?query={a}&query={b}', 'unclear-graphql'],
    ['a document in a list', '?query[]={a}', 'unclear-graphql'],
    ['a name in another case', '?Query={a}', 'unclear-graphql'],
    ['variables one by one', '?query={a}&variables[x]=1', 'unclear-graphql'],
    ['a document without a value', '?query', 'unclear-graphql'],
    ['an empty operation name', '?query={a}&operationName=', 'unclear-graphql'],
    ['variables that are no JSON', '?query={a}&variables=x', 'unclear-graphql'],
    ['variables that hold a name twice', '?query={a}&variables={"x":1,"x":2}', 'unclear-graphql'],
    ['a list of variables', '?query={a}&variables=[1]', 'unclear-graphql'],
    ['variables alone', '?variables={}', 'unclear-graphql'],
    ['escapes that are none', '?query=%zz', 'unclear-graphql'],
    ['an escape that is no name', '?%zz=1&query={a}', 'unclear-graphql'],
    ['what some servers split', '?a=1;query=mutation{a}', 'unclear-graphql'],
    ['other extensions', query({ query: '{a}', extensions: '{"trace":1}' }), 'unclear-graphql'],
  ])('is none for the cache with %s', (_what, raw, refusal) => {
    expect(spelt(raw)).toBe(refusal)
  })

  it('may name any document by its hash, since a GET changes nothing; but not one that is known to be a mutation', () => {
    const documents = new KnownDocuments()
    const extensions = JSON.stringify(hashed('mutation {a}'))
    expect(spelt(query({ extensions }), documents)).toEqual({ query: expect.any(String) })
    texts({ query: 'mutation {a}', extensions: hashed('mutation {a}') }, documents)
    expect(spelt(query({ extensions }), documents)).toBe('mutation')
  })

  it('holds nothing of GraphQL where that is in the body', () => {
    expect(graphqlQuery('?a=1', true, new KnownDocuments())).toEqual({ query: '?a=1' })
    expect(graphqlQuery('?query={a}', true, new KnownDocuments())).toBe('unclear-graphql')
    expect(graphqlQuery('?extensions={}', true, new KnownDocuments())).toBe('unclear-graphql')
  })

  it('is its own spelling', () => {
    for (const raw of [
      query({ query: '{a, b}', variables: '{"é":"🦦 &=;+"}', operationName: 'A' }),
      query({ extensions: byHash }),
    ]) {
      const first = spelt(raw.replace('operationName=A', ''))
      expect(first).toEqual({ query: expect.any(String) })
      expect(spelt((first as { query: string }).query)).toEqual(first)
    }
  })
})
