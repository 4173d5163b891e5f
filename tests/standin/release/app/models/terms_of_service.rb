class TermsOfService < ApplicationRecord
  scope :published, -> { where.not(published_at: nil).order(Arel.sql("coalesce(effective_date, published_at) DESC")) }
  scope :live, -> { published.where("effective_date IS NULL OR effective_date < now()") }
  validates :text, presence: true
  validates :changelog, :effective_date, presence: true, if: -> { published_at.present? }
  validates :effective_date, uniqueness: true
  validate :not_in_the_past

  def self.current = live.first || published.reorder(effective_date: :asc).first

  private

  def not_in_the_past
    earliest = TermsOfService.live.pick(:effective_date) || Time.zone.today
    errors.add(:effective_date, "is too soon, must be later than #{earliest}") if effective_date && effective_date < earliest
  end
end
