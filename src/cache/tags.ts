// The tags that a route gives: fixed names, or names with values from the path, as `presentation-:id`. A value stands in
// the tag as it stands in the path, so what a client asks for can only ever name its own.

import type { RequestContext } from '../core/context.ts'
import { MAX_TAGS, joinTags } from '../http/tags.ts'
import { TAG_PARAMETER } from './options.ts'

/** The tags of one request; null where a value makes one that cannot be kept. */
export type TagRule = (params: RequestContext['params']) => readonly string[] | null

const NONE: readonly string[] = []
export const noTags: TagRule = () => NONE

/** Compiles `tags` or `purges`: at most MAX_TAGS texts, whose parameters are in the path of the route. */
export function compileTags(templates: readonly string[] | undefined): TagRule {
  if (templates === undefined || templates.length === 0) return noTags
  if (!templates.some((template) => template.search(TAG_PARAMETER) >= 0)) {
    const fixed = [...new Set(templates)].slice(0, MAX_TAGS)
    return () => fixed
  }
  return (params) => {
    const tags = templates.map((template) =>
      template.replaceAll(TAG_PARAMETER, (_, name: string) => params?.get(name) ?? ''),
    )
    return joinTags(NONE, tags)
  }
}
