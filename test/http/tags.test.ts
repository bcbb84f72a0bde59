import { describe, expect, it } from 'vitest'
import { MAX_TAGS, joinTags, readTags } from '../../src/http/tags.ts'

const many = (count: number) => Array.from({ length: count }, (_, i) => `t${i}`)

describe('the tags of an answer', () => {
  it.each<[string, readonly string[], readonly string[] | null]>([
    ['none without a field', ['Date', 'x', 'Etag', 'a b'], []],
    ['Surrogate-Key, between blanks', ['surrogate-key', ' a  b\tc '], ['a', 'b', 'c']],
    ['xkey, on several lines', ['xkey', 'a', 'XKEY', 'b:1'], ['a', 'b:1']],
    ['Cache-Tag, between commas', ['Cache-Tag', 'a , b,,c,'], ['a', 'b', 'c']],
    ['all three, each tag once', ['xkey', 'a', 'Cache-Tag', 'a,b', 'Surrogate-Key', 'b c'], ['a', 'b', 'c']],
    ['none of an empty field', ['xkey', ''], []],
    ['compared as they are', ['xkey', 'a A'], ['a', 'A']],
    ['as many as can be kept', ['xkey', many(MAX_TAGS).join(' ')], many(MAX_TAGS)],
    ['not known where they are more', ['xkey', many(MAX_TAGS + 1).join(' ')], null],
    ['as long as can be kept', ['xkey', 'x'.repeat(128)], ['x'.repeat(128)]],
    ['not known where one is longer', ['xkey', 'x'.repeat(129)], null],
    ['not known where one holds a blank', ['cache-tag', 'a b'], null],
    ['not known where one is not ASCII', ['xkey', 'caf\u00e9'], null],
  ])('are %s', (_what, headers, tags) => {
    expect(readTags(headers)).toEqual(tags)
  })
})

describe('two lists of tags', () => {
  it.each<[readonly string[] | null, readonly string[] | null, readonly string[] | null]>([
    [[], [], []],
    [['a'], [], ['a']],
    [['a'], ['a', 'b'], ['a', 'b']],
    [null, ['a'], null],
    [['a'], null, null],
    [many(40), many(MAX_TAGS), many(MAX_TAGS)],
    [['other'], many(MAX_TAGS), null],
    [[], ['a', ''], null],
  ])('%j and %j make %j', (some, more, joined) => {
    expect(joinTags(some, more)).toEqual(joined)
  })
})
