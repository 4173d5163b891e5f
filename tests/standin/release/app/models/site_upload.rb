# Pictures of the server. Nothing is scaled: every style holds the same bytes.
class SiteUpload < ApplicationRecord
  include StoredFile
  stored_file :file, under: "site_uploads/files"
  validates :var, presence: true, uniqueness: true
end
