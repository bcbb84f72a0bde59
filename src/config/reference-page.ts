// The reference of all options as a Markdown page, made from the schema: what it accepts is said in the same words in
// which it refuses. Committed as docs/configuration.md; a test holds the two equal.

import { z } from 'zod'
import type { Refusal } from '../core/decode.ts'
import { isLater, shapesOf } from './shapes.ts'
import { gatewaySchema } from './schema.ts'

const INTRODUCTION = `# Configuration

One YAML 1.2 file, by default \`config/weirgate.yaml\`, says everything. \`weirgate check\` reads it and names every fault with
line and column; \`config/weirgate.schema.json\` lets an editor do the same while you type. Unknown options are refused.

**Durations** are written with their unit, \`250ms 30s 10m 1h 7d\` or a sum such as \`1h30m\`; **sizes** likewise, \`512B 64KiB 10MiB
2GiB\`. A bare number is refused for both.

**From outside.** In any value, not in keys: \`\${NAME}\` is a variable of the environment, which must be set; \`\${NAME:-default}\`
takes the default where it is unset or empty; \`\${file:/path}\` is the content of a file without the line break at its end, a
relative path beginning at the folder of the configuration. \`$\${\` stands for the two characters themselves. Put quotes around
such a value: between \`{ }\` and \`[ ]\` YAML needs them.
`

/** The page, with a line break at its end. */
export function configReference(): string {
  const sections: string[] = []
  const headings = new Map<z.ZodType, string>()

  const writeSection = (heading: string, mapping: z.ZodObject): void => {
    headings.set(mapping, heading)
    const place = sections.push('') - 1
    const rows: string[] = []
    const refused: string[] = []
    for (const [key, option] of Object.entries<z.ZodType>(mapping.shape)) {
      if (isLater(option)) {
        refused.push(`\`${key}\``)
        continue
      }
      const path = heading === ROOT ? key : `${heading}.${key}`
      for (const [inner, innerPath] of mappingsIn(option, path))
        if (!headings.has(inner)) writeSection(innerPath, inner)
      const cells = [`\`${key}\``, cell(valueText(option, headings)), defaultText(option), cell(meaningOf(option))]
      rows.push(`| ${cells.join(' | ')} |`)
    }
    const table = ['| Option | Value | Default | Meaning |', '|---|---|---|---|', ...rows]
    if (refused.length > 0) table.push('', `Not supported yet, and refused until then: ${refused.join(', ')}.`)
    sections[place] = `## ${heading}\n\n${table.join('\n')}\n`
  }

  writeSection(ROOT, gatewaySchema)
  return [INTRODUCTION, ...sections].join('\n')
}

const ROOT = 'The file'

/** The mappings with known keys that an option may hold, with the paths of their sections. */
function mappingsIn(schema: z.ZodType, path: string): [z.ZodObject, string][] {
  return shapesOf(schema).flatMap((shape): [z.ZodObject, string][] => {
    if (shape instanceof z.ZodObject) return [[shape, path]]
    if (shape instanceof z.ZodArray) return mappingsIn(shape.element as z.ZodType, `${path}[]`)
    if (shape instanceof z.ZodRecord) return mappingsIn(shape.valueType as z.ZodType, `${path}.name`)
    return []
  })
}

function valueText(schema: z.ZodType, headings: ReadonlyMap<z.ZodType, string>): string {
  const texts = shapesOf(schema).map((shape) => {
    if (shape instanceof z.ZodObject) return `a mapping: ${linkTo(headings.get(shape) ?? ROOT)}`
    if (shape instanceof z.ZodArray) return `a list; each: ${valueText(shape.element as z.ZodType, headings)}`
    if (shape instanceof z.ZodRecord) {
      const key = valueText(shape.keyType as z.ZodType, headings)
      return `a mapping; each key: ${key}; each value: ${valueText(shape.valueType as z.ZodType, headings)}`
    }
    return shape instanceof z.ZodLiteral ? null : expectedBy(shape)
  })
  return texts.filter((text) => text !== null).join(', or ')
}

/** What a decoder expects, in its own words: it refuses a symbol, whatever it reads. */
function expectedBy(decoder: z.ZodType): string {
  const issue = decoder.safeParse(Symbol('nothing that YAML could say')).error?.issues[0]
  return issue?.code === 'custom' ? (issue.params as Refusal).expected : 'any value'
}

function defaultText(schema: z.ZodType): string {
  if (schema instanceof z.ZodOptional) return ''
  if (!(schema instanceof z.ZodPrefault)) return '**required**'
  const value: unknown = schema.def.defaultValue
  return `\`${typeof value === 'string' && value !== '' ? value : JSON.stringify(value)}\``
}

function meaningOf(schema: z.ZodType): string {
  if (schema.description !== undefined) return schema.description
  const isWrapped = schema instanceof z.ZodOptional || schema instanceof z.ZodPrefault
  return isWrapped ? meaningOf(schema.unwrap() as z.ZodType) : ''
}

/** The anchor that GitHub gives a heading: lower case, without punctuation, dashes for spaces. */
const linkTo = (heading: string): string =>
  `[\`${heading}\`](#${heading
    .toLowerCase()
    .replaceAll(/[^\w -]/g, '')
    .replaceAll(' ', '-')})`

/** Text for a cell of a table: nothing in it is markup but code and links. */
const cell = (text: string): string => text.replaceAll(/[|<*]/g, String.raw`\$&`)
