// The rows that the presentation service starts with: 50 users, 24 templates, 12 themes, 240 presentations. All of them
// follow from the row's number, so every start serves the same bytes.

const FIRST_NAMES = ['Ada', 'Bela', 'Chen', 'Dina', 'Emeka', 'Freya', 'Goran', 'Hana', 'Ivo', 'Jun']
const LAST_NAMES = ['Almeida', 'Berg', 'Castillo', 'Dahl', 'Ekström']
const ROLES = ['viewer', 'editor', 'editor', 'admin']
const CATEGORIES = ['Pitch', 'Lesson', 'Report', 'Workshop', 'Portfolio', 'Proposal']
const LAYOUTS = ['Classic', 'Bold', 'Minimal', 'Gallery']
const THEMES = 'Harbour Moss Ember Slate Dune Lilac Fjord Clay Saffron Night Paper Reef'.split(' ')
const FONTS = ['Inter', 'Source Serif', 'Work Sans', 'Lora']
const STATUSES = ['draft', 'published', 'published', 'archived']
const TOPICS = (
  'Tides Rivers Glaciers Deltas Canals Locks Mills Bridges Harbours Lighthouses ' +
  'Reservoirs Springs Wetlands Estuaries Aqueducts Turbines Ferries Dykes Weirs Fountains'
).split(' ')
const ANGLES = (
  'at a glance/for beginners/in ten minutes/through history/and the climate/in numbers/' +
  'explained by engineers/in cities/and who pays for them/seen from above/under repair/in the year 2050'
).split('/')
const SLIDE_TITLES =
  'Where we stand/How it works/What it costs/Who decides/What went wrong/Three examples/What comes next'.split('/')

export const COUNTS = { users: 50, templates: 24, themes: 12, presentations: 240 } as const

const pick = (list: readonly string[], i: number): string => list[i % list.length] as string
const pad = (i: number): string => String(i).padStart(2, '0')
const hoursAfterStart = (hours: number): string => new Date(Date.UTC(2025, 0, 6, 8) + hours * 3_600_000).toISOString()
const rows = <T>(count: number, row: (i: number) => T): T[] => Array.from({ length: count }, (_, i) => row(i))

/** User n signs in with `Authorization: Bearer user-<n>`. */
export const users = () =>
  rows(COUNTS.users, (i) => {
    const first = pick(FIRST_NAMES, i)
    const last = pick(LAST_NAMES, Math.floor(i / FIRST_NAMES.length))
    return {
      name: `${first} ${last}`,
      email: `${first.toLowerCase()}.${i + 1}@example.com`,
      role: pick(ROLES, i),
      token: `user-${i + 1}`,
      created_at: hoursAfterStart(i),
    }
  })

export const templates = () =>
  rows(COUNTS.templates, (i) => {
    const category = pick(CATEGORIES, i)
    const layout = pick(LAYOUTS, Math.floor(i / CATEGORIES.length))
    return {
      name: `${layout} ${category}`,
      category: category.toLowerCase(),
      description: `A ${layout.toLowerCase()} starting point for a ${category.toLowerCase()}: cover, agenda, content, closing.`,
      slide_count: 6 + (i % 7),
      thumbnail_url: `https://images.example/templates/${pad(i + 1)}.png`,
    }
  })

export const themes = () =>
  rows(COUNTS.themes, (i) => ({
    name: pick(THEMES, i),
    font: pick(FONTS, i),
    primary_color: `hsl(${i * 30} 60% 45%)`,
    background: i % 3 === 0 ? 'dark' : 'light',
  }))

export const presentations = () =>
  rows(COUNTS.presentations, (i) => {
    const topic = pick(TOPICS, i)
    const angle = pick(ANGLES, Math.floor(i / TOPICS.length))
    const slides = rows(4 + (i % 5), (n) => {
      const title = pick(SLIDE_TITLES, i + n)
      return { title, body: `${topic} ${angle}: ${title.toLowerCase()}, and what it means for the people nearby.` }
    })
    return {
      title: `${topic} ${angle}`,
      description: `A presentation about ${topic.toLowerCase()}, ${slides.length} slides.`,
      status: pick(STATUSES, i),
      owner_id: 1 + ((i * 7) % COUNTS.users),
      template_id: 1 + ((i * 5) % COUNTS.templates),
      theme_id: 1 + (i % COUNTS.themes),
      slides: JSON.stringify(slides),
      created_at: hoursAfterStart(i * 5),
      updated_at: hoursAfterStart(i * 5 + (i % 90)),
    }
  })
