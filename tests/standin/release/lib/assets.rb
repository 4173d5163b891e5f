# Names of compiled files, which carry a digest and so differ between releases.
module Assets
  MANIFEST = JSON.parse(Rails.root.join("public/packs/.vite/manifest.json").read).freeze

  def self.path(name) = MANIFEST.fetch(name).fetch("file")
end
