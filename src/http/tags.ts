// Tags: names under which origins group their answers, so that a group can be purged at once. Three fields carry them, after
// the products that read them: Surrogate-Key and xkey between blanks, Cache-Tag between commas. They are for caches like
// this one and go no further.
//
// A tag is compared byte for byte. One that is lost would make a purge pass over what it names, so where not all can be
// kept the answer says so (null), and whoever stores must not.

import { type HeaderList } from '../core/context.ts'

/** Tags of one stored response. */
export const MAX_TAGS = 64
/** Bytes of one tag. */
export const MAX_TAG_BYTES = 128

/** Lower-case names of the fields that carry tags, and what stands between two of them. */
export const TAG_FIELDS: ReadonlyMap<string, RegExp> = new Map([
  ['surrogate-key', /[\t ]+/],
  ['xkey', /[\t ]+/],
  ['cache-tag', /[\t ]*,[\t ]*/],
])

/** Visible ASCII, 1 to MAX_TAG_BYTES of it. */
export const isTag = (text: string): boolean => text.length <= MAX_TAG_BYTES && /^[!-~]+$/.test(text)

const NONE: readonly string[] = []

/** The tags that an answer's fields name, each once; null where they are more, longer or other than can be kept. */
export function readTags(headers: HeaderList): readonly string[] | null {
  let tags = NONE
  for (let i = 0; i < headers.length; i += 2) {
    const name = headers[i] as string
    // Every answer comes by here, and most names are settled by their length.
    if (name.length !== 13 && name.length !== 4 && name.length !== 9) continue
    const separator = TAG_FIELDS.get(name.toLowerCase())
    if (separator === undefined) continue
    const named = (headers[i + 1] as string).trim().split(separator)
    const joined = joinTags(
      tags,
      named.filter((tag) => tag !== ''),
    )
    if (joined === null) return null
    tags = joined
  }
  return tags
}

/** Both lists as one, each tag once; null where one is null, is more than can be kept or holds what is no tag. */
export function joinTags(some: readonly string[] | null, more: readonly string[] | null): readonly string[] | null {
  if (some === null || more === null) return null
  if (more.length === 0) return some
  const tags = new Set(some)
  for (const tag of more) if (!isTag(tag) || tags.add(tag).size > MAX_TAGS) return null
  return [...tags]
}
