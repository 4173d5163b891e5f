class CustomEmoji < ApplicationRecord
  include StoredFile
  stored_file :image, under: "custom_emojis/images"
  validates :shortcode, uniqueness: { scope: :domain }, format: { with: /\A[a-zA-Z0-9_]{2,}\z/ }
  validates :image_file_name, presence: true
  validates :image_file_size, numericality: { less_than: 256.kilobytes }
end
